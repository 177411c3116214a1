import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import type { ProxyConfig } from '../../../common/proxy-config.ts'
import { ProxyApp } from '../../../proxy/app.ts'
import { mountedSource } from '../../../proxy/config/load.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { driverMaker } from '../../../proxy/drivers.ts'
import { ProxyLog } from '../../../proxy/observe/log.ts'
import { discover } from '../../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { freePort } from '../../helpers/ports.ts'
import { closedPort, tcpServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

const ends = endsOfEach()

const REF = { kind: 'configMap', name: 'orders', key: 'endpoints' } as const

function config(port: number, generation = 1, change: Partial<ProxyConfig> = {}): ProxyConfig {
  const base = plainConfig({ namespace: 'shop', host: 'x', port: 1, listenPort: port, protocol: 'TCP', tls: null })
  const content = {
    ...base,
    ambassador: { namespace: 'shop', name: 'orders', generation },
    clusters: base.clusters.map((each) => ({ ...each, discovery: { kind: 'file' as const, ref: REF } })),
    ...change,
  }
  return { ...content, hash: configHash(content) }
}

/** A proxy whose only upstream is the list in the ConfigMap, and servers that say their names. */
async function world(list: string | null) {
  const volumes = new Volumes()
  ends.push(() => volumes.remove())
  const write = (text: string) => volumes.configMap('orders', { endpoints: text })
  if (list !== null) write(list)
  const port = await freePort()
  volumes.config('orders', config(port))
  const lines: string[] = []
  let wake = () => {}
  const resolver = new Resolver({ resolvConf: '/nonexistent', hosts: '/nonexistent' })
  const app = new ProxyApp({
    sources: [mountedSource(volumes.configDir, 'shop', 'orders')],
    dirs: volumes.dirs,
    telemetryPort: 0,
    adminPort: 0,
    readiness: 'Listening',
    sidecarMode: 'Native',
    drainMs: 1000,
    podName: null,
    log: new ProxyLog({
      level: 'debug',
      write: (line) => {
        lines.push(line)
        wake()
      },
    }),
    discover: (each, source) => discover(each, resolver, source),
    makeDriver: driverMaker(() => {}),
    onQuit: () => {},
    watch: { debounceMs: 5, pollMs: 600_000 },
  })
  ends.push(() => app.stop('Native'))
  await app.start()
  const ask = async () => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.on('data', (chunk: Buffer) => {
      answer += chunk
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      answer ||= error.code ?? 'error'
    })
    await once(socket, 'close')
    return answer || 'nothing'
  }
  const logged = async (text: string) => {
    while (!lines.some((line) => line.includes(text))) await new Promise<void>((resolve) => (wake = resolve))
  }
  return { app, write, ask, logged, volumes, port, report: () => app.configz().ambassadors[0]! }
}

async function server(word: string) {
  const made = await tcpServer((socket) => socket.end(word))
  ends.push(() => made.close())
  return made
}

describe('an upstream whose endpoints another program writes', () => {
  it('moves when the list does, and no connection fails meanwhile', async () => {
    const [one, two] = [await server('one'), await server('two')]
    const { write, ask } = await world(`127.0.0.1:${one.port}\n`)
    assert.equal(await ask(), 'one')
    const answers: string[] = []
    let moved = false
    const load = Array.from({ length: 4 }, async () => {
      while (!moved) answers.push(await ask())
    })
    write(`# moved\n127.0.0.1:${two.port}\n127.0.0.1:${await closedPort()} priority=1\n`)
    while ((await ask()) !== 'two') await new Promise(setImmediate)
    moved = true
    await Promise.all(load)
    assert.deepEqual(
      [...new Set(answers)].filter((answer) => answer !== 'one' && answer !== 'two'),
      [],
    )
    assert.equal(await ask(), 'two')
  })

  for (const [title, text, problem] of [
    [
      'has a mistake',
      '127.0.0.1:1\nnonsense\n',
      "line 2, column 1: 'nonsense' is not an endpoint, use host:port or [address]:port",
    ],
    ['has no endpoint', '# nobody\n', 'line 2, column 1: has no endpoint, write at least one line host:port'],
  ] as const) {
    it(`keeps the last good list when the new one ${title}, and says where`, async () => {
      const one = await server('one')
      const two = await server('two')
      const { write, ask, logged, report } = await world(`127.0.0.1:${one.port}`)
      assert.equal(await ask(), 'one')
      write(text)
      await logged('endpoints cannot be looked up, those that are known stay')
      assert.equal(await ask(), 'one')
      const message = `upstream 'upstream': file: ConfigMap 'orders', key 'endpoints', ${problem}`
      assert.deepEqual(report().refs, [{ ref: REF, state: 'Invalid', message }])
      assert.equal(report().lastError?.message, `${message}; the last good list stays in use`)
      write(`127.0.0.1:${two.port}`)
      await logged('endpoints are found again')
      assert.equal(await ask(), 'two')
      assert.deepEqual(report().refs, [{ ref: REF, state: 'Found', message: '' }])
    })
  }

  it('keeps the last good list when the ConfigMap is deleted, also over a change of the rest of the config', async () => {
    const one = await server('one')
    const { volumes, ask, logged, report, port } = await world(`127.0.0.1:${one.port}`)
    assert.equal(await ask(), 'one')
    volumes.configMap('orders', {})
    await logged('endpoints cannot be looked up, those that are known stay')
    assert.equal(report().refs[0]?.state, 'Missing')
    volumes.config('orders', config(port, 2, { accessLog: { mode: 'All', sample: 0 } }))
    await logged('"generation":2')
    assert.equal(await ask(), 'one')
    assert.equal(report().rejected?.reason, 'MissingRef')
  })

  it('holds a connection that comes before the list', async () => {
    const one = await server('one')
    const { write, ask, volumes } = await world(null)
    volumes.configMap('orders', {})
    const early = ask()
    write(`127.0.0.1:${one.port}`)
    assert.equal(await early, 'one')
  })
})
