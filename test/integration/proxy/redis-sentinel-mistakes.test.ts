/** Redis by Sentinel with what people and machines get wrong: what each mistake is answered with. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { Pki } from '../../helpers/pki.ts'
import { RedisServer } from '../../helpers/redis.ts'
import {
  answerOf,
  answerOrPong,
  bySentinel,
  command,
  HOST,
  pong,
  SHORT,
  Started,
} from '../../helpers/sentinel-proxy.ts'
import { closedPort, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'

// Most of their time is the time that a connection may take.
describe('Redis by Sentinel, with what is wrong', { concurrency: 4, timeout: 120_000 }, () => {
  it('names the masters that the Sentinels know when masterName is another, also in /configz', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const sentinel = await started.lone(redis.port)
    const { port, proxy } = await started.proxy(bySentinel([sentinel], { masterName: 'other' }), SHORT)
    assert.equal(
      await answerOf(port),
      `-ERR ambassador: no_healthy_endpoint no Sentinel knows a master 'other'; Sentinel 127.0.0.1:${sentinel.port} monitors 'mymaster': correct sentinel.masterName\r\n`,
    )
    const configz = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/configz`)).json()
    const { lastError } = (configz as { ambassadors: { lastError: { reason: string; message: string } }[] })
      .ambassadors[0]!
    assert.equal(lastError.reason, 'no_healthy_endpoint')
    assert.match(lastError.message, /correct sentinel\.masterName/)
  })

  it('does not choose between Sentinels that disagree', async (t) => {
    const started = new Started(t)
    const [first, second] = [await started.server(), await started.server()]
    const sentinels = [await started.lone(first.port), await started.lone(second.port)]
    const { port } = await started.proxy(bySentinel(sentinels), SHORT)
    assert.match(
      await answerOf(port),
      /^-ERR ambassador: no_healthy_endpoint the Sentinels disagree on the master 'mymaster', .* and .*: 2 must agree\r\n$/,
    )
  })

  it('does not believe less than half of its Sentinels', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const sentinel = await started.lone(redis.port)
    const closed = { port: await closedPort() }
    const { port } = await started.proxy(bySentinel([sentinel, closed]), SHORT)
    assert.match(await answerOf(port), /of 2 Sentinels only 1 names the master .*: 2 must agree; .*ECONNREFUSED\r\n$/)
  })

  it('does not believe Sentinels that name a server which is no master', async (t) => {
    const started = new Started(t)
    const [master, replica] = [await started.server(), await started.server()]
    const sentinel = await started.lone(replica.port)
    const cli = new Redis({ port: replica.port })
    await cli.replicaof(HOST, master.port)
    cli.disconnect()
    const { port } = await started.proxy(bySentinel([sentinel]), SHORT)
    assert.match(
      await answerOf(port),
      /no_healthy_endpoint master 'mymaster': .* is not the master, its role is 'slave'/,
    )
  })

  it('says which credential a Sentinel wants, uses it, and takes a new one', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const sentinel = await started.lone(redis.port, ['requirepass secret'])
    const without = await started.proxy(bySentinel([sentinel]), SHORT)
    assert.match(await answerOf(without.port), /needs a credential: set sentinel\.auth/)
    const auth = { redis: { password: { secretKeyRef: { name: 'sentinel', key: 'password' } } } }
    const { port, proxy, volumes } = await started.proxy(bySentinel([sentinel], { auth }), SHORT, {
      sentinel: { password: 'wrong' },
    })
    assert.match(await answerOf(port), /refused the credential: WRONGPASS/)
    assert.doesNotMatch(proxy.stdout, /'wrong'/)
    volumes.secret('sentinel', { password: 'secret' })
    while (!(await answerOrPong(port)).startsWith('+PONG')) {}
  })

  it('verifies TLS to a Sentinel', async (t) => {
    const started = new Started(t)
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue()
    pki.remove()
    const file = (name: string, text: string) => {
      const path = join(tmpdir(), `ambassador-sentinel-${process.pid}-${name}`)
      writeFileSync(path, text)
      return path
    }
    const [cert, key, ca] = [file('crt', leaf.cert), file('key', leaf.key), file('ca', authority.cert)]
    const redis = await started.server()
    const sentinel = await RedisServer.start(
      [
        `tls-cert-file ${cert}`,
        `tls-key-file ${key}`,
        `tls-ca-cert-file ${ca}`,
        'tls-auth-clients no',
        `sentinel monitor mymaster 127.0.0.1 ${redis.port} 1`,
      ],
      { isSentinel: true, isTls: true },
    )
    started.ends.push(() => sentinel.stop())
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }
    const trusted = await started.proxy(bySentinel([sentinel], { tls }), {}, { ca: { 'ca.crt': authority.cert } })
    await pong(trusted.port)
    const untrusted = await started.proxy(bySentinel([sentinel], { tls: {} }), SHORT)
    assert.match(await answerOf(untrusted.port), /no_healthy_endpoint none of 1 Sentinels answers; .*not trusted/)
  })

  it('passes on what speaks against the login, the certificate or the address of the master itself', async (t) => {
    const started = new Started(t)
    const redis = await started.server(['requirepass secret'])
    const sentinel = await started.lone(redis.port, ['sentinel auth-pass mymaster secret'])
    const auth = { redis: { password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    const secrets = { redis: { password: 'wrong' } }
    const refused = await started.proxy({ ...bySentinel([sentinel]), auth }, SHORT, secrets)
    assert.match(await answerOf(refused.port), /^-WRONGPASS .*\(ambassador: auth_unavailable /)
    const untrusted = await started.proxy({ ...bySentinel([sentinel]), tls: {} }, SHORT)
    assert.match(
      await answerOf(untrusted.port),
      /^-ERR ambassador: (tls_verify_failed|upstream_reset|no_healthy_endpoint) /,
    )
    const egress = { egress: { allow: [`${HOST}:${sentinel.port}`] } }
    const denied = await started.proxy(bySentinel([sentinel]), { ...SHORT, ...egress })
    assert.match(await answerOf(denied.port), /^-ERR ambassador: egress_denied /)
    const elsewhere = await started.proxy(bySentinel([sentinel]), { ...SHORT, egress: { allow: ['10.0.0.0/8'] } })
    assert.match(await answerOf(elsewhere.port), /none of 1 Sentinels answers; .*egress\.allow/)
  })

  it('recognises what is no Sentinel', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const plain = await started.proxy(bySentinel([redis]), SHORT)
    assert.match(
      await answerOf(plain.port),
      /is not a Sentinel, it answers: ERR unknown command.*; use the port of a Sentinel/,
    )
  })

  for (const [what, says, why] of [
    ['HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n', /which is not Redis/],
    ['a list without an end', '*999999999\r\n', /a length that Redis would not send/],
    ['a text without an end', `$${2 ** 31}\r\n`, /a length that Redis would not send/],
    ['lists in lists in lists', '*1\r\n'.repeat(100), /a length that Redis would not send/],
    ['answers to nothing that was asked', '+PONG\r\n:1\r\n:2\r\n:3\r\n:4\r\n', /answered with what no Sentinel says/],
  ] as const) {
    it(`recognises a server that answers with ${what}`, async (t) => {
      const started = new Started(t)
      const odd = await new TestServer(createServer((socket) => socket.on('data', () => socket.write(says)))).listen()
      started.ends.push(() => odd.close())
      const { port } = await started.proxy(bySentinel([odd]), SHORT)
      const answer = await answerOf(port)
      assert.match(answer, /^-ERR ambassador: no_healthy_endpoint none of 1 Sentinels answers/)
      assert.match(answer, why)
    })
  }

  it('gives up on a Sentinel that accepts and says nothing', async (t) => {
    const started = new Started(t)
    const mute = await tcpServer(() => {})
    started.ends.push(() => mute.close())
    const { port } = await started.proxy(bySentinel([mute]), { timeouts: { connect: '4s' } })
    assert.match(await answerOf(port), /none of 1 Sentinels answers; .*did not answer within \d+ ms/)
  })

  it('tells connections that no replica is there for role Replica', async (t) => {
    const started = new Started(t)
    const redis = await started.server()
    const sentinel = await started.lone(redis.port)
    const { port } = await started.proxy(bySentinel([sentinel], { role: 'Replica' }), SHORT)
    assert.match(
      await answerOf(port),
      /no_healthy_endpoint master 'mymaster' \(127\.0\.0\.1:\d+\) has no replica that is up and linked to it: add one, or use role Master\r\n$/,
    )
  })

  it('holds connections to a dead master for as long as a connection may take, then says why', async (t) => {
    const started = new Started(t)
    const redis = await RedisServer.start()
    // A quorum that one Sentinel cannot have: there is no failover.
    const sentinel = await started.lone(redis.port, [], 2)
    const { port } = await started.proxy(bySentinel([sentinel]), SHORT)
    await pong(port)
    const idle = new TestClient({ port })
    idle.write(command('PING'))
    await idle.read(7)
    await redis.stop()
    const startedAt = performance.now()
    assert.match(await answerOf(port), /no_healthy_endpoint master 'mymaster': .*ECONNREFUSED/)
    assert.ok(performance.now() - startedAt > 1_600)
    const again = await RedisServer.start([], { port: redis.port })
    started.ends.push(() => again.stop())
    // The connection that was idle is still there, and goes on with the server that came back.
    while (!(await answerOrPong(port)).startsWith('+PONG')) {}
    idle.write(command('PING'))
    assert.equal(await idle.read(14), '+PONG\r\n+PONG\r\n')
    idle.socket.destroy()
  })
})
