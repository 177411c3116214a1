/** Redis servers that forbid, forget, rename, run full, hang up or come back: what an application behind the sidecar sees of it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { Pki } from '../../helpers/pki.ts'
import { RedisServer, type redisProxy } from '../../helpers/redis.ts'
import { Talker } from '../../helpers/redis-beside.ts'
import { bySentinel, HOST, Started } from '../../helpers/sentinel-proxy.ts'
import { Volumes } from '../../helpers/volume.ts'

type Proxy = Awaited<ReturnType<typeof redisProxy>>

const APP = 'user app on >first ~* &* +@all'
const AUTH = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
const FIRST = { redis: { password: 'first' } }
const at = (...servers: readonly { readonly port: number }[]) => ({
  endpoints: servers.map(({ port }) => ({ host: HOST, port })),
})
const cli = (port: number, ...args: string[]) =>
  execFileSync('redis-cli', ['-p', String(port), ...args], { encoding: 'utf8', stdio: 'pipe' }).trim()
const until = async (is: () => boolean | Promise<boolean>) => {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 10))
}
/** Connections to a server but for the one that asks, as `app`. */
const connected = (port: number) => cli(port, 'CLIENT', 'LIST').match(/ user=app /g)?.length ?? 0

function world(t: TestContext) {
  const started = new Started(t)
  return {
    started,
    open: (port: number) => {
      const talker = new Talker(port)
      started.ends.push(() => talker.client.socket.destroy())
      return talker
    },
    /** What its health is by the checks: 0 well, 2 out of use. */
    health: async ({ proxy }: Proxy, port: number) => {
      const { body } = await proxy.get('/metrics')
      const found = new RegExp(`^ambassador_endpoint_health\\{.*:${port}".*\\} (\\d)$`, 'm').exec(body)
      return found?.[1]
    },
  }
}

/** Checks that have been made since. */
const CHECKS = { interval: '1s', timeout: '20s', unhealthyThreshold: 1 }

describe('a Redis that forbids or renames what the sidecar asks of its own', {
  concurrency: true,
  timeout: 120_000,
}, () => {
  for (const [what, settings] of [
    ['forbids PING, ROLE, INFO and CLIENT to the user', ['user app on >first ~* &* +get +set +select']],
    ['allows the user nothing but two commands on a few keys', ['user app on >first ~app:* resetchannels +get +set']],
    [
      'has renamed PING, ROLE, INFO, CLIENT, HELLO, COMMAND and CONFIG',
      [
        APP,
        ...['PING', 'ROLE', 'INFO', 'CLIENT', 'HELLO', 'COMMAND', 'CONFIG'].map((name) => `rename-command ${name} ""`),
      ],
    ],
  ] as const) {
    it(`${what}: it is logged in to, kept ready and found well all the same`, async (t) => {
      const { started, open, health } = world(t)
      const one = await started.server([...settings])
      const two = await started.server([...settings])
      for (const upstream of [
        { ...at(one), healthCheck: CHECKS },
        { endpoints: [one, two].map(({ port }, priority) => ({ host: HOST, port, priority })), healthCheck: CHECKS },
      ]) {
        const proxy = await started.proxy({ ...upstream, auth: AUTH }, {}, FIRST)
        await until(async () => (await health(proxy, one.port)) === '0')
        for (const talker of [open(proxy.port), open(proxy.port), open(proxy.port)]) {
          assert.equal(await talker.ask('SET app:a 1'), '+OK\r\n')
          assert.equal(await talker.ask('GET app:a'), '$1\r\n1\r\n')
        }
        assert.equal(await health(proxy, one.port), '0')
      }
    })
  }

  it('by a Sentinel: whoever may not ask for the role is talked to', async (t) => {
    const { started, open } = world(t)
    const server = await started.server(['user app on >first ~* &* +get +set'])
    const sentinel = await started.lone(server.port)
    const proxy = await started.proxy({ ...bySentinel([sentinel]), auth: AUTH }, {}, FIRST)
    assert.equal(await open(proxy.port).ask('SET a 1'), '+OK\r\n')
  })

  it('has renamed AUTH: the application is told what the server says', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP, 'rename-command AUTH ""'])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    assert.match(
      await open(proxy.port).ask('GET a'),
      /^-ERR unknown command 'AUTH'.* \(ambassador: auth_unavailable endpoint .* refused the credential: ERR unknown command/,
    )
  })

  it('does not know HELLO: a driver that falls back to AUTH goes on', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP, 'rename-command HELLO ""'])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const talker = open(proxy.port)
    assert.match(await talker.ask('HELLO 3 AUTH me whatever SETNAME web'), /^-ERR unknown command 'HELLO'/)
    assert.deepEqual(
      await talker.askAll(['AUTH me whatever', 'CLIENT SETNAME web', 'SELECT 2']),
      Array(3).fill('+OK\r\n'),
    )
    assert.equal(await talker.ask('ACL WHOAMI'), '$3\r\napp\r\n')
  })
})

describe('a Redis that runs full or hangs up', { concurrency: true, timeout: 120_000 }, () => {
  it('says that it has too many clients in its own words, and is used again as soon as it has room', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP, 'maxclients 6'])
    const control = open(server.port)
    await control.ask('PING')
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const held: Talker[] = []
    // All that the server has room for: those that are kept ready are there for whoever comes.
    while (held.length < 5) {
      const talker = open(proxy.port)
      if ((await talker.ask('SET a 1')) === '+OK\r\n') held.push(talker)
    }
    const refused = await open(proxy.port).ask('SET a 1')
    assert.match(refused, /^-ERR max number of clients reached \(ambassador: no_healthy_endpoint /)
    held[0]!.client.socket.destroy()
    await until(async () => (await open(proxy.port).ask('GET a')) === '$1\r\n1\r\n')
  })

  it('closes idle connections: those that wait ready are not given to anybody, and the application sees no more than without the sidecar', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP])
    const sentinel = await started.lone(server.port)
    const plain = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const followed = await started.proxy({ ...bySentinel([sentinel]), auth: AUTH }, {}, FIRST)
    const [idle, moved] = [open(plain.port), open(followed.port)]
    assert.equal(await idle.ask('SELECT 3'), '+OK\r\n')
    assert.deepEqual(await moved.askAll(['SELECT 3', 'CLIENT SETNAME web']), ['+OK\r\n', '+OK\r\n'])
    await until(() => connected(server.port) >= 6)
    cli(server.port, 'CONFIG', 'SET', 'timeout', '1')
    await until(() => connected(server.port) === 0)
    cli(server.port, 'CONFIG', 'SET', 'timeout', '0')
    assert.equal(await idle.rest(), '')
    assert.match(await moved.ask('CLIENT INFO'), / name=web .* db=3 /)
    for (const { port } of [plain, followed])
      for (const talker of [open(port), open(port), open(port)]) assert.equal(await talker.ask('PING'), '+PONG\r\n')
  })

  it('is killed and comes back: nobody gets a connection that is dead', async (t) => {
    const { started, open } = world(t)
    const server = await RedisServer.start([APP])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const idle = open(proxy.port)
    assert.equal(await idle.ask('PING'), '+PONG\r\n')
    await until(() => connected(server.port) === 3)
    await server.stop()
    assert.equal(await idle.rest(), '')
    assert.match(await open(proxy.port).ask('PING'), /^-ERR ambassador: (connect_refused|upstream_reset) /)
    const again = await RedisServer.start([APP], { port: server.port })
    started.ends.push(() => again.stop())
    for (const talker of [open(proxy.port), open(proxy.port), open(proxy.port)])
      assert.equal(await talker.ask('PING'), '+PONG\r\n')
  })

  it('gives each new connection the one that has waited longest, so that none waits until somebody between has forgotten it', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const used = new Set<number>()
    for (let n = 0; n < 4; n++) {
      used.add(Number((await open(proxy.port).ask('CLIENT ID')).slice(1)))
      await until(() => connected(server.port) === n + 3)
    }
    const all = cli(server.port, 'CLIENT', 'LIST').matchAll(/^id=(\d+) .* user=app /gm)
    const waiting = [...all].map(([, id]) => Number(id)).filter((id) => !used.has(id))
    assert.equal(waiting.length, 2)
    assert.ok(Math.min(...waiting) > Math.max(...used), `${waiting} wait, ${[...used]} are used`)
  })
})

describe('a login of the application where the sidecar has one', { timeout: 120_000 }, () => {
  it('is that of the sidecar in a transaction too, in both of its forms, and other options of HELLO stay', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP, 'user me on >mine ~* &* +@all'])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const talker = open(proxy.port)
    const queued = ['+OK\r\n', ...Array(3).fill('+QUEUED\r\n')]
    assert.deepEqual(await talker.askAll(['MULTI', 'AUTH me wrong', 'AUTH mine', 'ACL WHOAMI']), queued)
    assert.equal(await talker.ask('EXEC'), '*3\r\n+OK\r\n+OK\r\n$3\r\napp\r\n')
    const hello = 'HELLO 3 AUTH me mine SETNAME web'
    assert.deepEqual(await talker.askAll(['MULTI', hello, 'CLIENT GETNAME', 'ACL WHOAMI']), queued)
    assert.match(await talker.ask('EXEC'), /^\*3\r\n%7\r\n.*\$3\r\nweb\r\n\$3\r\napp\r\n$/s)
    assert.match(await talker.ask('CLIENT INFO'), / name=web .* user=app .* resp=3/)
    // What the server refuses is refused in the words of the server.
    assert.deepEqual(await talker.askAll(['MULTI', 'HELLO 3 AUTH me', 'EXEC']), [
      '+OK\r\n',
      '+QUEUED\r\n',
      "*1\r\n-ERR Syntax error in HELLO option 'AUTH'\r\n",
    ])
  })

  it('gets the same words each time that TLS cannot be set up', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP])
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }
    const upstream = { ...at(server, { port: 1 }), auth: AUTH, tls }
    const proxy = await started.proxy(
      upstream,
      { timeouts: { connect: '20s' } },
      { ...FIRST, ca: { 'ca.crt': 'none' } },
    )
    for (let n = 0; n < 30; n++) {
      // An attempt that ends so costs nothing of the retry budget, or the later ones would be told something else.
      assert.match(await open(proxy.port).ask('PING'), /^-ERR ambassador: tls_verify_failed TLS cannot be set up: /)
    }
  })
})

describe('a password of Redis that is changed', { concurrency: true, timeout: 120_000 }, () => {
  it('at the server first: those that are connected go on, new ones are told, until the Secret follows', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const old = open(proxy.port)
    assert.equal(await old.ask('PING'), '+PONG\r\n')
    await until(() => connected(server.port) === 3)
    cli(server.port, 'ACL', 'SETUSER', 'app', 'resetpass', '>second')
    cli(server.port, 'CLIENT', 'KILL', 'USER', 'app')
    await old.rest()
    const told = /^-WRONGPASS .*\(ambassador: auth_unavailable /
    await until(async () => told.test(await open(proxy.port).ask('PING')))
    proxy.volumes.secret('redis', { password: 'second' })
    await until(async () => (await open(proxy.port).ask('PING')) === '+PONG\r\n')
  })

  it('in the Secret first: those that are connected go on, whatever the server says to the new one', async (t) => {
    const { started, open } = world(t)
    const server = await started.server([APP])
    const proxy = await started.proxy({ ...at(server), auth: AUTH }, {}, FIRST)
    const [old, busy] = [open(proxy.port), open(proxy.port)]
    assert.equal(await old.ask('SELECT 3'), '+OK\r\n')
    assert.deepEqual(await busy.askAll(['MULTI', 'SET a 1']), ['+OK\r\n', '+QUEUED\r\n'])
    proxy.volumes.secret('redis', { password: 'second' })
    await until(async () => (await open(proxy.port).ask('PING')).startsWith('-WRONGPASS'))
    assert.equal(await old.ask('PING'), '+PONG\r\n')
    assert.equal(await busy.ask('EXEC'), '*1\r\n+OK\r\n')
    cli(server.port, 'ACL', 'SETUSER', 'app', 'resetpass', '>second')
    await until(async () => (await open(proxy.port).ask('PING')) === '+PONG\r\n')
    for (const talker of [old, busy]) assert.equal(await talker.ask('PING'), '+PONG\r\n')
  })
})

describe('a Redis that wants a certificate', { timeout: 120_000 }, () => {
  it('is told apart from one that wants none, and from one without TLS', async (t) => {
    const { started, open } = world(t)
    const files = new Volumes()
    started.ends.push(() => files.remove())
    const pki = new Pki()
    const authority = pki.authority()
    const [leaf, own] = [authority.issue(), authority.issue({ usage: 'clientAuth', names: ['web'] })]
    pki.remove()
    const parts = { 'cert-file': leaf.cert, 'key-file': leaf.key, 'ca-cert-file': authority.cert }
    const lines = Object.entries(parts).map(([name, text]) => {
      writeFileSync(join(files.secretsDir, name), text)
      return `tls-${name} ${join(files.secretsDir, name)}`
    })
    const server = await RedisServer.start([...lines, 'tls-auth-clients yes'], { isTls: true })
    started.ends.push(() => server.stop())
    const plain = await started.server()
    const secrets = { ca: { 'ca.crt': authority.cert }, web: { 'tls.crt': own.cert, 'tls.key': own.key } }
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }
    const answer = async (upstream: object) => {
      const proxy = await started.proxy(upstream, { timeouts: { connect: '3s' } }, secrets)
      return open(proxy.port).ask('PING')
    }
    assert.equal(
      await answer({ ...at(server), tls: { ...tls, clientCertificate: { secretName: 'web' } } }),
      '+PONG\r\n',
    )
    assert.match(await answer({ ...at(server), tls }), /^-ERR ambassador: upstream_reset .*CERTIFICATE_REQUIRED/)
    assert.match(await answer(at(server)), /^-ERR ambassador: upstream_reset /)
    const handshake = /^-ERR ambassador: connect_timeout .* did not finish the TLS handshake within \d+ ms\r\n$/
    assert.match(await answer({ ...at(plain), tls }), handshake)
  })
})
