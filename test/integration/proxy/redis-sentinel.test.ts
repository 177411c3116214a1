/** Redis by Sentinel: what is learned and survived, what moves and what ends. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { bySentinel, command, HOST, pong, Started } from '../../helpers/sentinel-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

describe('Redis by Sentinel, as it comes and goes', { concurrency: true, timeout: 120_000 }, () => {
  it('follows names that Sentinels announce in place of addresses', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const settings = ['sentinel resolve-hostnames yes', 'sentinel announce-hostnames yes']
    const sentinel = await started.lone(redis.port, settings, 1, 'localhost')
    const { port, proxy } = await started.proxy(bySentinel([sentinel]))
    await pong(port)
    const text = await (await fetch(`http://127.0.0.1:${proxy.adminPort}/upstreams`)).text()
    assert.match(text, /"host":\s*"localhost"/)
  })

  it('holds what follows a READONLY of the master, until somebody is one again', async (t) => {
    const started = new Started(t)
    const [redis, other] = [await started.server(), await started.server()]
    const sentinel = await started.lone(redis.port)
    const { port, proxy } = await started.proxy(bySentinel([sentinel]), { timeouts: { connect: '30s' } })
    const client = new TestClient({ port })
    client.write(command('SET', 'a', '1'))
    await client.read(5)
    const cli = new Redis({ port: redis.port })
    await cli.replicaof(HOST, other.port)
    client.write(command('SET', 'a', '2'))
    assert.match(await client.read(14), /^\+OK\r\n-READONLY/)
    // The sidecar asks the server for its role, and sends it nothing more.
    const sidecar = async (is: (it: { open: number; failure: string | null }) => boolean) => {
      for (;;) {
        const { ambassadors } = JSON.parse((await proxy.admin('GET', '/upstreams')).body)
        const [{ connections, upstreams }] = ambassadors
        if (is({ open: connections.open, failure: upstreams[0].discoveryFailure })) return
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    await sidecar(({ failure }) => failure?.includes('is not the master') === true)
    const { text } = client
    client.write(command('SET', 'a', '3'))
    const late = new TestClient({ port })
    late.write(command('PING'))
    await sidecar(({ open }) => open === 2)
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.deepEqual([client.text, late.text], [text, ''])
    await cli.replicaof('NO', 'ONE')
    cli.disconnect()
    while (!client.text.endsWith('+OK\r\n')) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(client.text.match(/READONLY/g)?.length, 1)
    assert.equal(await late.read(7), '+PONG\r\n')
    for (const each of [client, late]) each.socket.destroy()
  })
})

// Each with servers of its own: at a switch most of the time is the Sentinels'.
describe('Redis with three Sentinels', { concurrency: true, timeout: 120_000 }, () => {
  it('balances role Replica over the replicas that are linked, and leaves one that dies', async (t) => {
    const started = new Started(t)
    const all = await started.cluster()
    const { port, proxy } = await started.proxy(bySentinel(all.addresses, { role: 'Replica' }))
    const ports = new Set<string>()
    const own = all.servers.filter((each) => each.port !== all.masterPort())
    for (let i = 0; i < 50 && ports.size < 2; i++) {
      const client = new Redis({ port })
      const [role] = (await client.role()) as string[]
      assert.equal(role, 'slave')
      ports.add(/tcp_port:(\d+)/.exec(await client.info('server'))?.[1] ?? '')
      client.disconnect()
    }
    assert.deepEqual([...ports].sort(), own.map((each) => String(each.port)).sort())
    const metrics = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`)).text()
    assert.match(metrics, /^ambassador_endpoints\{.*state="available"\} 2$/m)
    const writer = new Redis({ port })
    await assert.rejects(writer.set('a', '1'), /READONLY/)
    // What a replica says of itself is no reason to leave it.
    assert.equal(await writer.get('a'), null)
    writer.disconnect()
    own[0]!.child.kill('SIGSTOP')
    try {
      for (;;) {
        const text = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`)).text()
        if (/^ambassador_endpoints\{.*state="available"\} 1$/m.test(text)) break
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
      const client = new Redis({ port })
      assert.match(await client.info('server'), new RegExp(`tcp_port:${own[1]!.port}\\b`))
      client.disconnect()
    } finally {
      own[0]!.child.kill('SIGCONT')
    }
  })

  it('ends transactions, WATCH, channels and blocking commands at a switch, and carries on what is idle in RESP3', async (t) => {
    const started = new Started(t)
    const all = await started.cluster()
    const { port } = await started.proxy(bySentinel(all.addresses))
    const open = async (...commands: string[][]) => {
      const client = new TestClient({ port })
      for (const each of commands) {
        const from = client.text.length
        client.write(command(...each))
        while (client.text.length === from) await new Promise((resolve) => setTimeout(resolve, 5))
      }
      return client
    }
    const multi = await open(['MULTI'], ['SET', 'a', '1'])
    const watching = await open(['WATCH', 'a'])
    // Outside of a transaction EXEC is refused, and the watch goes on.
    const refused = await open(['WATCH', 'a'], ['EXEC'])
    const subscribed = await open(['SUBSCRIBE', 'news'])
    const blocked = await open(['PING'])
    blocked.write(command('BLPOP', 'nothing', '0'))
    const idle = await open(['HELLO', '3'], ['SELECT', '5'], ['CLIENT', 'SETNAME', 'web'])
    const master = all.masterPort()
    await all.failOver()
    for (const each of [multi, watching, refused, subscribed, blocked]) await each.ended()
    assert.match(blocked.text, /-ERR ambassador: upstream_reset the server is no longer the one to talk to\r\n$/)
    assert.doesNotMatch(multi.text, /READONLY/)
    await all.switched(master)
    const from = idle.text.length
    idle.write(command('CLIENT', 'INFO'))
    while (!idle.text.slice(from).includes('cmd=')) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.match(idle.text.slice(from), /name=web .*db=5 .*resp=3/s)
    for (const each of [multi, watching, refused, subscribed, blocked, idle]) each.socket.destroy()
    await all.settled()
  })

  it('learns the Sentinels that one knows, and goes on when that one is lost and comes back', async (t) => {
    const started = new Started(t)
    const all = await started.cluster()
    const [first] = all.sentinels
    const { port } = await started.proxy(bySentinel([first!]))
    await pong(port)
    await first!.stop()
    const rest = all.sentinels.slice(1)
    const master = all.masterPort.call({ sentinels: rest, sentinelCli: all.sentinelCli.bind(all) } as never)
    const writer = new Redis({ port, maxRetriesPerRequest: 0 })
    writer.on('error', () => {})
    await writer.set('before', '1')
    await all.failOver(rest[0]!)
    const promoted = await all.switched(master)
    for (;;) {
      const text = await writer.info('server')
      if (text.includes(`tcp_port:${promoted}\r`)) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await writer.set('after', '1')
    writer.disconnect()
    all.sentinels.shift()
    await all.addSentinel(first!.port)
    await all.settled()
    await pong(port)
  })

  it('ends a reply that never comes when the master hangs and is replaced', async (t) => {
    const started = new Started(t)
    const all = await started.cluster()
    const { port } = await started.proxy(bySentinel(all.addresses), { timeouts: { connect: '2s' } })
    const client = new TestClient({ port })
    client.write(command('PING'))
    await client.read(7)
    const master = all.masterPort()
    const { child } = all.serverAt(master)
    child.kill('SIGSTOP')
    try {
      client.write(command('SET', 'a', '1'))
      await client.ended()
      assert.match(client.text, /-ERR ambassador: upstream_reset /)
      await all.switched(master)
      const after = new TestClient({ port })
      after.write(command('SET', 'a', '1'))
      assert.equal(await after.read(5), '+OK\r\n')
      after.socket.destroy()
    } finally {
      child.kill('SIGCONT')
      client.socket.destroy()
    }
  })
})
