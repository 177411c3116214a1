/** Secrets in logins, commands and statements of Redis and PostgreSQL, looked for in everything that the sidecar says. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import pg from 'pg'
import { Env } from '../../../common/names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { Hidden } from '../../helpers/hidden.ts'
import { freePort } from '../../helpers/ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { RedisServer } from '../../helpers/redis.ts'
import { TestClient } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

const ends = endsOfAll()

const hidden = new Hidden()
const hide = (place: string) => hidden.hide(place)

const resp = (...words: string[]) =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`

describe('a secret of a database', () => {
  it('is in nothing that the sidecar says, wherever it was hidden', async () => {
    const volumes = new Volumes()
    ends.push(() => volumes.remove())
    const redis = await RedisServer.start([`user app on >${hide('password of Redis')} ~* &* +@all`])
    ends.push(() => redis.stop())
    const postgres = await postgresServer({}, ends)
    const admin = new pg.Client({
      host: '127.0.0.1',
      port: postgres.port,
      user: POSTGRES_USER,
      password: POSTGRES_PASSWORD,
      database: 'postgres',
    })
    await admin.connect()
    await admin.query(`create role app login password '${hide('password of PostgreSQL')}'`)
    await admin.end()

    volumes.secret('redis', { password: hidden.at('password of Redis') })
    volumes.secret('redis-wrong', { password: hide('wrong password of Redis') })
    volumes.secret('redis-broken', { password: `${hide('first line of a broken password')}\nx` })
    volumes.secret('postgres', { password: hidden.at('password of PostgreSQL') })
    volumes.secret('postgres-wrong', { password: hide('wrong password of PostgreSQL') })
    volumes.secret('postgres-broken', { password: `${hide('password of PostgreSQL with a NUL')}\0` })
    const ports: Record<string, number> = {}
    const endpoint = (port: number) => [{ host: '127.0.0.1', port }]
    for (const [name, protocol, upstreamPort] of [
      ['redis', 'Redis', redis.port],
      ['redis-wrong', 'Redis', redis.port],
      ['redis-broken', 'Redis', redis.port],
      ['postgres', 'PostgreSQL', postgres.port],
      ['postgres-wrong', 'PostgreSQL', postgres.port],
      ['postgres-broken', 'PostgreSQL', postgres.port],
    ] as const) {
      ports[name] = await freePort()
      const password = { secretKeyRef: { name, key: 'password' } }
      const login = { username: 'app', password }
      const spec = {
        protocol,
        listen: { port: ports[name] },
        upstreams: [
          {
            name: 'live',
            endpoints: endpoint(upstreamPort),
            auth: protocol === 'Redis' ? { redis: login } : { postgres: login },
            healthCheck: protocol === 'Redis' ? { tcp: {}, interval: '1s' } : { interval: '1s' },
          },
        ],
        timeouts: { connect: '10s' },
        accessLog: { mode: 'All' },
      }
      const { config, problems } = render({ ambassador: { metadata: { name }, spec } as unknown as Ambassador })
      assert.ok(config !== null, JSON.stringify(problems))
      volumes.config(name, config)
    }
    const proxy = await ProxyProcess.start({
      ...volumes.env(Object.keys(ports).join()),
      [Env.logLevel]: 'debug',
      [Env.readiness]: 'UpstreamHealthy',
    })
    ends.push(() => proxy.end())
    await proxy.line(() => proxy.log.filter(({ msg }) => String(msg).startsWith('config in force')).length === 6)

    const answers: Record<string, string> = {}
    /** Sends bytes on a connection of their own, and waits until there is an answer. */
    const send = async (name: string, bytes: string): Promise<void> => {
      const client = new TestClient({ port: ports[name] as number })
      ends.push(() => client.socket.destroy())
      client.write(bytes)
      answers[name] = (answers[name] ?? '') + (await client.read(1).catch((error: Error) => error.message))
      client.socket.destroy()
    }
    for (const name of ['redis', 'redis-wrong', 'redis-broken']) {
      await send(name, resp('AUTH', hide(`AUTH of the application to ${name}`)))
      await send(name, resp('AUTH', 'me', hide(`AUTH with a name to ${name}`)))
      await send(name, resp('HELLO', '3', 'AUTH', 'me', hide(`HELLO to ${name}`)))
      await send(name, resp('SET', hide(`key in ${name}`), hide(`value in ${name}`)))
      await send(name, resp('CONFIG', 'SET', 'masterauth', hide(`CONFIG SET to ${name}`)))
      await send(name, resp('ACL', 'SETUSER', 'x', 'on', `>${hide(`ACL SETUSER to ${name}`)}`))
      await send(name, resp(hide(`command that is none to ${name}`), hide(`its argument to ${name}`)))
      await send(name, `AUTH ${hide(`inline AUTH to ${name}`)}\r\n`)
      await send(name, `*1\r\n$${hide(`length that is none to ${name}`)}\r\n`)
      await send(name, `*${hide(`count that is none to ${name}`)}\r\n`)
    }
    for (const name of ['postgres', 'postgres-wrong', 'postgres-broken']) {
      const client = new pg.Client({
        host: '127.0.0.1',
        port: ports[name],
        user: 'me',
        database: 'postgres',
        password: hide(`password of the application to ${name}`),
        application_name: hide(`application_name to ${name}`),
      })
      client.on('error', () => {})
      try {
        await client.connect()
        await client.query(`select '${hide(`literal in ${name}`)}'`)
        await client.query('select $1::text', [hide(`parameter in ${name}`)])
        await client.query(`select "${hide(`column that is none in ${name}`)}"`).catch(() => {})
        await client.query(`alter role app password '${hide(`new password in ${name}`)}'`).catch(() => {})
        answers[name] = 'ok'
      } catch (error) {
        answers[name] = (error as Error).message
      }
      await client.end().catch(() => {})
      await send(name, `\0\0\0\x1d${hide(`start of a protocol that is none to ${name}`)}`)
    }
    assert.equal(answers['postgres']?.slice(0, 2), 'ok')
    assert.match(answers['redis'] ?? '', /^\+OK/)

    let said = ''
    for (const path of ['/metrics', '/configz', '/readyz']) said += (await proxy.get(path)).body
    for (const path of ['/', '/upstreams']) said += (await proxy.admin('GET', path)).body
    proxy.kill('SIGINT')
    assert.equal(await proxy.exit, 0)
    assert.ok(hidden.size >= 40, `${hidden.size} places`)
    assert.match(said, /auth_unavailable|has a line break inside/)
    assert.deepEqual(hidden.shownIn(said), [])
    assert.deepEqual(hidden.shownIn(proxy.stdout + proxy.stderr), [])
    // What the sidecar answers itself must not have them either; an answer of the server may quote what it was sent.
    const own = ['redis-wrong', 'redis-broken', 'postgres-wrong', 'postgres-broken'].map((name) => answers[name])
    assert.deepEqual(hidden.shownIn(own.join('\n')), [])
  })
})
