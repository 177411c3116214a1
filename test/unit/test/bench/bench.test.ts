import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { anonymousBytes, cpuSeconds, freePort, start, tree } from '../../../bench/process.ts'
import { table } from '../../../bench/report.ts'
import { inTurn, median, type Result } from '../../../bench/run-suite.ts'
import { http, tcp } from '../../../bench/suites/http.ts'

const result = (name: string, overrides: Partial<Result>): Result => ({
  name,
  version: '1',
  features: 'retries',
  cpuMicros: 10,
  perSecond: 20_000,
  p50Ms: 0.5,
  p99Ms: 1,
  errors: 0,
  startMs: 20,
  anonymousIdle: 5e6,
  anonymousAfter: 6e6,
  anonymousOpen: 7e6,
  bytesPerConnection: null,
  rounds: [],
  ...overrides,
})

describe('the bench', () => {
  it('tells the middle of its rounds', () => {
    assert.equal(median([3, 1, 2]), 2)
    assert.equal(median([4, 1, 2, 3]), 2.5)
  })

  it('lets each be the first in its turn', () => {
    assert.deepEqual(inTurn(['a', 'b', 'c'], 4), ['b', 'c', 'a'])
    assert.deepEqual(inTurn(['a', 'b', 'c'], 6), ['a', 'b', 'c'])
  })

  it('prints each figure with its ratio to HAProxy, and errors where there are any', () => {
    const text = table(http, [result('ambassador', { cpuMicros: 12.5, p50Ms: 0.4, errors: 3 }), result('haproxy', {})])
    const row = text.split('\n').find((line) => line.startsWith('ambassador '))
    assert.match(row ?? '', /12\.5 +× 1\.25 +20000 +× 1\.00 +0\.40 +× 0\.80 .* 3 errors$/)
  })

  it('tells streams by the GiB, connections by the connection, and leaves out what was not looked at', () => {
    const memory = { p50Ms: null, p99Ms: null, anonymousOpen: null }
    const bulk = table({ ...tcp, unit: 'GiB' }, [
      result('ambassador', { ...memory, cpuMicros: 800_000, perSecond: 1.5 }),
      result('haproxy', { ...memory, cpuMicros: 1_000_000, perSecond: 1 }),
    ])
    assert.match(bulk, /CPU s\/GiB +MiB\/s +start ms +idle MB +after MB\n/)
    assert.match(bulk, /\nambassador +0\.800 +× 0\.80 +1536 +× 1\.50 /)
    const connections = table({ ...tcp, unit: 'conn' }, [result('haproxy', { cpuMicros: 80, perSecond: 9000 })])
    assert.match(connections, /CPU µs\/conn +conn\/s +p50 ms/)
  })

  it('tells of open connections that nobody uses what each takes, and nothing of a load that there was not', () => {
    const text = table({ ...tcp, load: null }, [result('ambassador', { bytesPerConnection: 10_100 })])
    assert.match(text, /open MB +kB\/conn\n/)
    assert.match(text, / 10\.1\n/)
    assert.doesNotMatch(text, /req/)
  })

  it('counts CPU and memory of a process with its children, and ends them all', async () => {
    const port = await freePort()
    const worker = `
      while (process.cpuUsage().user < 150_000);
      require('node:net').createServer().listen(${port}, '127.0.0.1')`
    const program = `
      require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(worker)}])
      setInterval(() => {}, 1e6)`
    const running = await start(0, process.execPath, ['-e', program], { port, timeoutMs: 60_000 })
    const pids = tree(running.pid)
    assert.equal(pids.length, 2)
    assert.ok(cpuSeconds(running.pid) >= 0.1, `${cpuSeconds(running.pid)} s of CPU`)
    assert.ok(anonymousBytes(running.pid) > 10e6, `${anonymousBytes(running.pid)} bytes`)
    await running.stop()
    assert.equal(anonymousBytes(running.pid), 0)
    assert.deepEqual(tree(running.pid), [running.pid])
  })

  it('says what a program that does not start has said', async () => {
    const port = await freePort()
    const failing = start(0, process.execPath, ['-e', 'console.error("no such file"); process.exit(1)'], { port })
    await assert.rejects(failing, /has ended:\nno such file/)
  })
})
