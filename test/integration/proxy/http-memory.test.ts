/** What clients see of a sidecar whose memory is nearly used up: refusals that leave nothing behind, and ends of what nobody reads. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { OverloadWatch } from '../../../proxy/runtime/overload.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { type httpProxy as HttpProxy, httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import type { TestClient } from '../../helpers/tcp.ts'

const ends = endsOfEach()
const MIB = 1024 * 1024

/** Says how much of 64 MiB is used, and has it looked at. */
function memoryOf(driver: Awaited<ReturnType<typeof HttpProxy>>['driver']): (mib: number) => void {
  const cgroupDir = mkdtempSync(join(tmpdir(), 'cgroup-'))
  writeFileSync(join(cgroupDir, 'memory.max'), `${64 * MIB}\n`)
  const watch = new OverloadWatch({
    cgroupDir,
    collect: () => {},
    growing: () => driver.growing,
    endSome: (count, detail) => driver.endSome(count, detail),
  })
  ends.push(() => {
    watch.stop()
    rmSync(cgroupDir, { recursive: true })
  })
  return (mib) => {
    writeFileSync(join(cgroupDir, 'memory.current'), `${Math.round(mib * MIB)}\n`)
    watch.look(0)
  }
}

it('refuses with Connection: close, so that no connection stays, and takes no new one beyond those that it tells', async () => {
  const upstream = await scriptedUpstream(ends, () => ok())
  const proxy = await httpProxy({ ports: [upstream.port] }, ends)
  const uses = memoryOf(proxy.driver)
  const old = proxy.connect()
  assert.equal((await old.get().response()).status, 200)
  uses(56)
  for (const client of [old, proxy.connect()]) {
    const answer = await client.get().response()
    assert.deepEqual(
      [answer.status, answer.field('x-ambassador-reason'), answer.field('connection'), answer.field('retry-after')],
      [503, 'overloaded', 'close', '1'],
    )
    assert.match(JSON.parse(answer.body).detail, /^88 % of the memory limit of 67108864 bytes are used$/)
    await client.tcp.ended()
  }
  assert.equal(proxy.cells.reasons.overloaded, 2)
  uses(50)
  assert.equal((await proxy.connect().get().response()).status, 200)
  assert.equal(upstream.requests.length, 2)
})

/** Answers without an end. */
function endless(socket: Socket): null {
  const chunk = Buffer.alloc(65_536, 'x')
  const more = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  }
  socket.on('drain', more).on('error', () => {})
  socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n')
  more()
  return null
}

it('ends the newest requests whose clients do not read, as cut ones, and no others', async () => {
  const upstream = await scriptedUpstream(ends, ({ target, socket }) => {
    ends.push(() => socket.destroy())
    return target === '/held' ? null : endless(socket)
  })
  const proxy = await httpProxy({ ports: [upstream.port] }, ends)
  const uses = memoryOf(proxy.driver)
  const slow: TestClient[] = []
  for (const path of ['/first', '/second', '/third']) {
    const { tcp } = proxy.connect().get(path)
    await tcp.read(1)
    tcp.socket.pause()
    slow.push(tcp)
  }
  proxy.connect().get('/held')
  await upstream.request(3)
  // All but the one that waits for its answer are held up by clients that do not read.
  const areHeldUp = async (): Promise<void> => {
    while (proxy.driver.growing !== 1) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await areHeldUp()
  assert.equal(proxy.driver.endSome(1, 'for want of memory'), 1)
  const [newest] = await proxy.recorded(1)
  assert.deepEqual(
    [newest?.path, newest?.status, newest?.reason, newest?.detail],
    ['/third', 200, 'overloaded', 'for want of memory'],
  )
  // 4.5 MiB too much are more than both of them hold.
  await areHeldUp()
  uses(0.92 * 64)
  const ended = await proxy.recorded(3)
  assert.deepEqual(
    ended.slice(1).map(({ reason, path }) => [reason, path]),
    ['/first', '/second'].map((path) => ['overloaded', path]),
  )
  for (const { socket } of slow) socket.resume()
  await Promise.all(slow.map((client) => client.ended()))
  assert.equal(proxy.driver.busy, 1)
})
