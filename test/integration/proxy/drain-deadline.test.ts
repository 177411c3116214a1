/** What still goes on at an endpoint that has left: ended at a boundary, after the deadline, or at once where nobody answers. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { type HttpProxySetup, httpProxy } from '../../helpers/http-proxy.ts'
import { onTime } from '../../helpers/on-time.ts'
import { silentPort } from '../../helpers/silent-port.ts'
import { echo, tcpServer } from '../../helpers/tcp.ts'
import { type TcpProxySetup, tcpProxy } from '../../helpers/tcp-proxy.ts'

const ends = endsOfEach()

async function echoServer() {
  const made = await tcpServer(echo)
  ends.push(() => made.close())
  return made
}

const CHECK = { port: null, intervalMs: 20, timeoutMs: 200, unhealthyThreshold: 1, healthyThreshold: 1 }

describe('a TCP connection whose endpoint has left', () => {
  const world = async (setup: TcpProxySetup) => {
    const [old, next] = [await echoServer(), await echoServer()]
    const made = await tcpProxy({ ports: [old.port], ...setup }, ends)
    const app = made.client().write('a')
    await app.read(1)
    return { ...made, old, next, app }
  }

  it('goes on for ever without a deadline, while new ones go elsewhere', async () => {
    const { app, client, found, old, next } = await world({})
    found([next.port])
    await client().write('b').read(1)
    assert.equal(await app.write('c').read(2), 'ac')
    assert.deepEqual([old.accepted, next.accepted], [1, 1])
  })

  it('goes on until the deadline and is reset then, with the reason', () =>
    onTime(400, async () => {
      const { app, found, next, record } = await world({ cluster: { drainDeadlineMs: 1000 } })
      const leftAt = performance.now()
      found([next.port])
      assert.equal(await app.write('c').read(2), 'ac')
      assert.equal(await app.closed(), 'ECONNRESET')
      assert.ok(performance.now() - leftAt >= 990)
      const { end, detail, bytesIn } = await record()
      assert.deepEqual(
        [end, detail, bytesIn],
        ['endpoint_left', 'its endpoint left discovery 1000 ms ago, which is its drainDeadline', 2],
      )
    }))

  it('stays when the endpoint is back before the deadline, and has a new one when it leaves again', () =>
    onTime(400, async () => {
      const { app, found, old, next, cluster } = await world({ cluster: { drainDeadlineMs: 1000 } })
      found([next.port])
      found([next.port, old.port])
      const again = [...cluster.endpoints].find(({ port }) => port === old.port)
      assert.equal(again?.tenants.size, 1)
      await new Promise((resolve) => setTimeout(resolve, 1300))
      assert.equal(await app.write('c').read(2), 'ac')
      found([next.port])
      assert.equal(await app.closed(), 'ECONNRESET')
    }))

  it('is bound by a deadline that is configured only after it left', async () => {
    const { app, found, next, cluster } = await world({})
    found([next.port])
    assert.equal(await app.write('c').read(2), 'ac')
    cluster.update({
      config: { ...cluster.config, drainDeadlineMs: 1 },
      tls: null,
      budget: null,
      probeTimeoutMs: 1000,
      queue: 'Oldest',
    })
    assert.equal(await app.closed(), 'ECONNRESET')
  })

  it('is reset at once when nobody answers there any more', async () => {
    const silent = await silentPort(ends)
    const { app, found, next, cluster, record } = await world({
      cluster: { healthCheck: { ...CHECK, port: silent, probe: { kind: 'tcp' } } },
    })
    const [endpoint] = [...cluster.endpoints]
    while (!endpoint?.isSilent) await new Promise((resolve) => setTimeout(resolve, 5))
    // As long as discovery names it, a connection that works is nobody's business.
    assert.equal(await app.write('c').read(2), 'ac')
    found([next.port])
    assert.equal(await app.closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.deepEqual(
      [end, detail],
      ['endpoint_left', 'nobody answers at its endpoint, which discovery does not name any more'],
    )
  })

  it('goes on when its endpoint only accepts no new ones, as a server does that ends in peace', async () => {
    const { app, found, old, next, cluster } = await world({
      cluster: { healthCheck: { ...CHECK, probe: { kind: 'tcp' } } },
    })
    old.server.close()
    const [endpoint] = [...cluster.endpoints]
    while (endpoint?.isHealthy) await new Promise((resolve) => setTimeout(resolve, 5))
    found([next.port])
    assert.equal(await app.write('c').read(2), 'ac')
  })
})

describe('an HTTP request whose endpoint has left', () => {
  const world = async (setup: HttpProxySetup) => {
    const answers: ServerResponse[] = []
    const old = createServer((_incoming, answer) => answers.push(answer)).listen(0, '127.0.0.1')
    old.on('upgrade', (_incoming, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n')
      socket.on('error', () => {}).pipe(socket)
    })
    await once(old, 'listening')
    ends.push(() => {
      old.close()
      old.closeAllConnections()
    })
    const next = createServer((_incoming, answer) => answer.end('next')).listen(0, '127.0.0.1')
    await once(next, 'listening')
    ends.push(() => {
      next.close()
      next.closeAllConnections()
    })
    const ports = [(old.address() as AddressInfo).port]
    const made = await httpProxy({ ports, ...setup }, ends)
    const answered = async () => {
      while (answers.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
      return answers[0]!
    }
    return { ...made, answered, leave: () => made.found([(next.address() as AddressInfo).port]) }
  }

  it('gets its answer, and the next one of the same application goes elsewhere', async () => {
    const { connect, answered, leave } = await world({})
    const app = connect().get()
    const answer = await answered()
    leave()
    answer.end('old')
    assert.equal((await app.response()).body, 'old')
    assert.equal((await app.get().response()).body, 'next')
  })

  it('is cut after the deadline, and sent again where that is allowed', async () => {
    const { connect, answered, leave, records } = await world({ cluster: { drainDeadlineMs: 100 }, retry: {} })
    const app = connect().get()
    await answered()
    leave()
    assert.equal((await app.response()).body, 'next')
    assert.equal(records.length, 1)
  })

  it('is cut after the deadline, and told so where it must not be sent again', async () => {
    const { connect, answered, leave, recorded } = await world({ cluster: { drainDeadlineMs: 100 }, retry: {} })
    const app = connect().post('pay')
    await answered()
    leave()
    const { status, field } = await app.response()
    assert.deepEqual([status, field('x-ambassador-reason')], [502, 'upstream_reset'])
    const [record] = await recorded(1)
    assert.match(record?.detail ?? '', /its endpoint left discovery 100 ms ago, which is its drainDeadline$/)
  })

  it('and has become a tunnel goes on until the deadline', () =>
    onTime(400, async () => {
      const { connect, leave } = await world({ cluster: { drainDeadlineMs: 1000 } })
      const app = connect().get('/', 'Connection: Upgrade', 'Upgrade: chat')
      assert.equal((await app.response()).status, 101)
      leave()
      const before = app.tcp.length
      app.write('hello')
      assert.match(await app.tcp.read(before + 5), /hello$/)
      assert.equal(await app.tcp.closed(), 'ECONNRESET')
    }))
})
