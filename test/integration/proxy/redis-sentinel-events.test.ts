/** Redis by Sentinel, one event at a time: what is held from when on, and that nobody who was tracking is left in silence. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, it, type TestContext } from 'node:test'
import { FakeSentinel } from '../../helpers/fake-sentinel.ts'
import { bySentinel, command, HOST, Started } from '../../helpers/sentinel-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

const cli = (port: number, ...args: string[]) =>
  execFileSync('redis-cli', ['-p', String(port), ...args], { encoding: 'utf8' }).trim()
const until = async (is: () => boolean | Promise<boolean>) => {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 10))
}

/** A master, a server that becomes the next one, and a sidecar that listens to the events. */
async function world(t: TestContext) {
  const started = new Started(t)
  const [master, next] = [await started.server(), await started.server()]
  const sentinel = await new FakeSentinel(master.port).listen()
  started.ends.push(() => sentinel.close())
  const { port, proxy } = await started.proxy(bySentinel([sentinel]), { timeouts: { connect: '1m' } })
  const bytesIn = async () => {
    const { body } = await proxy.get('/metrics')
    return Number(/^ambassador_redis_bytes_total\{.*direction="in"\} (\d+)$/m.exec(body)?.[1])
  }
  const open = async (...commands: string[][]) => {
    const client = new TestClient({ port })
    started.ends.push(() => client.socket.destroy())
    for (const args of commands) {
      const from = client.length
      client.write(command(...args))
      await client.read(from + 1)
    }
    return client
  }
  const about = `slave ${HOST}:${next.port} ${HOST} ${next.port} @ mymaster ${HOST} ${master.port}`
  await until(() => sentinel.listeners('-monitor') === 1)
  return {
    ...{ master, next, open },
    /** The sidecar has taken note of the event. */
    tell: async (channel: string, text = about) => {
      // Whatever it was about to ask, it has asked, so that the next question is about the event.
      for (let n = 0; n < 2; n++) await proxy.get('/readyz')
      const { asked } = sentinel
      sentinel.publish(channel, text)
      await until(() => sentinel.asked > asked)
      await proxy.get('/readyz')
    },
    /** Sends a command, which the sidecar has read then. */
    send: async (client: TestClient, ...args: string[]) => {
      const before = await bytesIn()
      const sent = command(...args)
      client.write(sent)
      await until(async () => (await bytesIn()) >= before + sent.length)
    },
    switchOver: () => {
      sentinel.master = next.port
      sentinel.publish('+switch-master', `mymaster ${HOST} ${master.port} ${HOST} ${next.port}`)
    },
  }
}

describe('events of a Sentinel', { concurrency: true, timeout: 120_000 }, () => {
  for (const event of ['+failover-state-send-slaveof-noone', '+promoted-slave']) {
    it(`holds writes from ${event} on, until the new master is named`, async (t) => {
      const { master, next, open, tell, send, switchOver } = await world(t)
      const client = await open(['SET', 'before', '1'])
      await tell(event)
      await send(client, 'SET', 'held', '1')
      const late = await open()
      await send(late, 'SET', 'late', '1')
      assert.deepEqual([client.text, late.text], ['+OK\r\n', ''])
      assert.equal(cli(master.port, 'EXISTS', 'held', 'late'), '0')
      switchOver()
      assert.equal(await client.read(10), '+OK\r\n+OK\r\n')
      assert.equal(await late.read(5), '+OK\r\n')
      assert.equal(cli(next.port, 'EXISTS', 'held', 'late'), '2')
      assert.equal(cli(master.port, 'EXISTS', 'held', 'late'), '0')
    })
  }

  it('lets writes go on to the old master when the failover is given up', async (t) => {
    const { master, open, tell, send } = await world(t)
    const client = await open(['SET', 'before', '1'])
    await tell('+promoted-slave')
    await send(client, 'SET', 'held', '1')
    assert.equal(client.text, '+OK\r\n')
    await tell('-failover-abort-slave-timeout')
    assert.equal(await client.read(10), '+OK\r\n+OK\r\n')
    assert.equal(cli(master.port, 'EXISTS', 'held'), '1')
  })

  it('tells those that track keys what changes, and ends them at a switch, so that they cannot go on with what is stale', async (t) => {
    const { master, next, open, switchOver } = await world(t)
    const pushed = await open(['SET', 'a', '1'], ['HELLO', '3'], ['CLIENT', 'TRACKING', 'on'], ['GET', 'a'])
    const broadcast = await open(['HELLO', '3'], ['CLIENT', 'TRACKING', 'on', 'BCAST', 'PREFIX', 'a'])
    const listener = await open(['CLIENT', 'ID'])
    const id = /:(\d+)\r\n/.exec(listener.text)?.[1] ?? ''
    listener.write(command('SUBSCRIBE', '__redis__:invalidate'))
    await until(() => listener.text.endsWith(':1\r\n'))
    const redirected = await open(['CLIENT', 'TRACKING', 'on', 'REDIRECT', id], ['GET', 'a'])
    assert.match(redirected.text, /^\+OK\r\n\$1\r\n1\r\n$/)
    cli(master.port, 'SET', 'a', '2')
    const push = '>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n'
    await until(() => pushed.text.endsWith(push) && broadcast.text.endsWith(push))
    await until(() => listener.text.endsWith('$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\na\r\n'))
    switchOver()
    for (const each of [pushed, broadcast, listener, redirected]) await each.ended()
    const again = await open(['HELLO', '3'], ['CLIENT', 'TRACKING', 'on'], ['GET', 'a'])
    cli(next.port, 'SET', 'a', '3')
    await until(() => again.text.endsWith(push))
  })
})
