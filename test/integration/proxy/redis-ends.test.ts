/** How connections of Redis end, and what an application is told when something ends before it is done. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, describe, it, type TestContext } from 'node:test'
import { endsOf } from '../../helpers/ends.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { command, HOST } from '../../helpers/sentinel-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

type Proxy = Awaited<ReturnType<typeof redisProxy>>

const at = ({ port }: { readonly port: number }) => ({ endpoints: [{ host: HOST, port }] })
const cli = (port: number, ...args: string[]) =>
  execFileSync('redis-cli', ['-p', String(port), ...args], { encoding: 'utf8' }).trim()
const until = async (is: () => boolean | Promise<boolean>) => {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 10))
}
/** Connections of the application that the sidecar has, and those among them on which something is under way. */
const openOf = async ({ proxy }: Proxy): Promise<number> => {
  const { ambassadors } = JSON.parse((await proxy.admin('GET', '/upstreams')).body)
  return ambassadors[0].connections.open
}

async function started(t: TestContext, settings: readonly string[] = []) {
  const ends = endsOf(t)
  const server = await RedisServer.start(settings)
  ends.push(() => server.stop())
  return {
    server,
    proxy: async (...[upstream = {}, ...rest]: Partial<Parameters<typeof redisProxy>>) => {
      const proxy = await redisProxy({ ...at(server), ...upstream }, ...(rest as []))
      ends.push(() => proxy.stop())
      return proxy
    },
    other: async (more: readonly string[] = []) => {
      const other = await RedisServer.start(more)
      ends.push(() => other.stop())
      return other
    },
    client: (port: number) => {
      const client = new TestClient({ port })
      ends.push(() => client.socket.destroy())
      return client
    },
  }
}

describe('an application of Redis that ends its connection', { timeout: 120_000 }, () => {
  let server: RedisServer
  let proxy: Proxy
  const clients: TestClient[] = []
  const open = () => {
    const client = new TestClient({ port: proxy.port })
    clients.push(client)
    return client
  }

  before(async () => {
    server = await RedisServer.start(['enable-debug-command yes'])
    proxy = await redisProxy(at(server))
  })
  after(async () => {
    for (const { socket } of clients) socket.destroy()
    await proxy?.stop()
    await server?.stop()
  })

  it('gets the reply to what it sent with its end, before there was a connection to the server', async () => {
    const client = open().end(`${command('SET', 'early', '1')}PING\r\n`)
    assert.equal(await client.ended(), '+OK\r\n+PONG\r\n')
  })

  it('gets all of the replies to a pipeline, as large as they are', async () => {
    cli(server.port, 'SET', 'kilobyte', 'x'.repeat(1000))
    const client = open()
    client.write(command('GET', 'kilobyte').repeat(10_000)).end()
    const text = await client.ended()
    assert.equal(text.length, 10_000 * (1000 + '$1000\r\n\r\n'.length))
  })

  it('leaves no connection to the server behind when it breaks off in the middle of a value', async () => {
    await until(async () => (await openOf(proxy)) === 0)
    const breaks = [(client: TestClient) => client.end(), (client: TestClient) => client.socket.resetAndDestroy()]
    for (const end of breaks) {
      const client = open()
      client.write(`${command('PING')}*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000000\r\nabc`)
      await client.read(7)
      end(client)
      await until(async () => (await openOf(proxy)) === 0)
    }
    assert.equal(cli(server.port, 'EXISTS', 'half'), '0')
  })

  it('has everything written that it sent after CLIENT REPLY OFF', async () => {
    const client = open()
    client.write(command('CLIENT', 'REPLY', 'OFF'))
    const value = 'x'.repeat(100_000)
    for (let n = 0; n < 300; n++) client.write(command('SET', `silent-${n}`, value))
    client.end()
    assert.equal(await client.ended(), '')
    await until(() => cli(server.port, 'EXISTS', 'silent-299') === '1')
    assert.equal(cli(server.port, 'EVAL', "return #redis.call('KEYS', 'silent-*')", '0'), '300')
    cli(server.port, 'FLUSHALL')
  })

  it('loses no element of a list to a wait that it has given up', async () => {
    const client = open()
    client.write(command('BLPOP', 'queue', '0'))
    const blocked = () => Number(/blocked_clients:(\d+)/.exec(cli(server.port, 'INFO', 'clients'))?.[1])
    await until(() => blocked() === 1)
    client.end()
    assert.equal(await client.ended(), '')
    await until(() => blocked() === 0)
    cli(server.port, 'RPUSH', 'queue', 'element')
    assert.equal(cli(server.port, 'LRANGE', 'queue', '0', '-1'), 'element')
  })

  it('is told what is wrong with a command behind the replies to those before it', async () => {
    const wrong = ['*1\r\n$-1\r\n', '*2\r\n$3\r\nGET\r\nx', '*2\r\n$3\r\nGET\r\n$1\r\nabc\r\n', '\x00']
    for (const each of wrong) {
      const client = open().write(command('DEBUG', 'SLEEP', '0.05') + command('ECHO', 'a') + each)
      assert.match(await client.ended(), /^\+OK\r\n\$1\r\na\r\n-ERR ambassador: bad_request the application's .*\r\n$/)
    }
  })
})

describe('a connection of Redis that the server ends', { timeout: 120_000 }, () => {
  it('ends without an error after SHUTDOWN, and goes on after one that is refused', async (t) => {
    const { client, proxy } = await started(t)
    const { port } = await proxy()
    const each = client(port)
    each.write(command('SHUTDOWN', 'NOSUCH'))
    assert.match(await each.read(10), /^-ERR syntax error\r\n/)
    each.write(command('SHUTDOWN', 'NOSAVE'))
    assert.equal(await each.ended(), '-ERR syntax error\r\n')
  })

  it('says in the words of a server that it takes no more of them, with and without a credential', async (t) => {
    const { server, client, proxy } = await started(t, ['maxclients 1', 'user app on >first ~* &* +@all'])
    const auth = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    // Whoever found out that it listens may still count.
    while (!(await client(server.port).write('PING\r\n').read(7)).startsWith('+PONG')) {}
    for (const more of [{}, { auth }]) {
      const { port } = await proxy(more, {}, { redis: { password: 'first' } })
      const refused = client(port).write('PING\r\n')
      const words = /^-ERR max number of clients reached \(ambassador: no_healthy_endpoint endpoint .*\)\r\n$/
      assert.match(await refused.ended(), words)
    }
  })

  it('ends when the login after RESET is refused, before a command goes by another user', async (t) => {
    const { server, client, proxy } = await started(t, ['user app on >first ~* &* +@all'])
    const auth = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    const { port } = await proxy({ auth }, {}, { redis: { password: 'first' } })
    for (const before of [[], ['CLIENT', 'REPLY', 'SKIP']]) {
      cli(server.port, 'ACL', 'SETUSER', 'app', 'resetpass', '>first')
      const each = client(port).write(command('ACL', 'WHOAMI'))
      assert.equal(await each.read(9), '$3\r\napp\r\n')
      cli(server.port, 'ACL', 'SETUSER', 'app', 'resetpass', '>other')
      each.write((before.length > 0 ? command(...before) : '') + command('RESET') + command('SET', 'a', '1'))
      assert.match(
        await each.ended(),
        /^\$3\r\napp\r\n(\+RESET\r\n)?-ERR ambassador: upstream_reset .* refused the login/,
      )
      assert.equal(cli(server.port, 'EXISTS', 'a'), '0')
    }
  })

  it('is not moved to a server that has no such database: it ends before anything is written elsewhere', async (t) => {
    const { client, proxy, other } = await started(t)
    const { port, update } = await proxy()
    const small = await other(['databases 2'])
    const [fits, large] = [client(port), client(port)]
    fits.write(command('SELECT', '1'))
    large.write(command('SELECT', '5'))
    await fits.read(5)
    await large.read(5)
    update(at(small))
    const isMoved = () => {
      const text = client(port).write(command('CONFIG', 'GET', 'databases'))
      return text.read(20).then((said) => said.includes('$1\r\n2\r\n'))
    }
    await until(isMoved)
    large.write(command('SET', 'a', '1'))
    assert.match(
      await large.ended(),
      /^\+OK\r\n-ERR ambassador: upstream_reset .* refused .* the database that .*\r\n$/,
    )
    fits.write(command('SET', 'b', '1'))
    assert.equal(await fits.read(10), '+OK\r\n+OK\r\n')
    assert.equal(cli(small.port, 'INFO', 'keyspace').split('\n').slice(1).join(), 'db1:keys=1,expires=0,avg_ttl=0')
  })
})

describe('a connection of Redis to a server that has left', { timeout: 120_000 }, () => {
  /** Connections in every state that cannot be moved, at an endpoint that then leaves. */
  async function left(t: TestContext, more: object) {
    const { server, client, proxy, other } = await started(t)
    const made = await proxy(more)
    const next = await other()
    const open = async (...commands: string[][]) => {
      const each = client(made.port)
      for (const args of commands) {
        const from = each.length
        each.write(command(...args))
        await each.read(from + 1)
      }
      return each
    }
    const waiting = {
      subscribed: await open(['SUBSCRIBE', 'news']),
      blocked: await open(['PING']),
      monitoring: await open(['MONITOR']),
      watching: await open(['SET', 'a', '1'], ['WATCH', 'a']),
      tracking: await open(['HELLO', '3'], ['CLIENT', 'TRACKING', 'on'], ['GET', 'a']),
    }
    const transaction = await open(['MULTI'], ['SET', 't', '1'])
    waiting.blocked.write(command('BLPOP', 'queue', '0'))
    await until(() => cli(server.port, 'INFO', 'clients').includes('blocked_clients:1'))
    made.update({ ...at(next), ...more })
    const isNext = async () => {
      const info = await client(made.port).write(command('INFO', 'server')).read(500)
      return info.includes(`tcp_port:${next.port}\r`)
    }
    await until(isNext)
    return { ...made, server, next, waiting, transaction }
  }

  it('is let go on to the end of its transaction, and then moves; what has no end is told and ended', async (t) => {
    const { server, next, waiting, transaction } = await left(t, {})
    for (const [what, each] of Object.entries(waiting)) {
      assert.match(await each.ended(), what === 'blocked' ? /-ERR ambassador: upstream_reset / : /./, what)
    }
    transaction.write(command('SET', 'u', '2'))
    assert.match(await transaction.read(23), /\+QUEUED\r\n\+QUEUED\r\n$/)
    const from = transaction.length
    transaction.write(command('EXEC') + command('SET', 'v', '3'))
    assert.equal((await transaction.read(from + 19)).slice(from), '*2\r\n+OK\r\n+OK\r\n+OK\r\n')
    assert.deepEqual([cli(server.port, 'GET', 't'), cli(server.port, 'GET', 'u')], ['1', '2'])
    transaction.write(command('SET', 'w', '4'))
    assert.match(await transaction.read(from + 24), /\+OK\r\n$/)
    assert.equal(cli(next.port, 'GET', 'w'), '4')
  })

  it('goes on as it is for as long as drainDeadline says, and moves as soon as it can', async (t) => {
    const { server, next, waiting } = await left(t, { drainDeadline: '10m' })
    const { subscribed, blocked, monitoring, watching, tracking } = waiting
    const heard = subscribed.length
    cli(server.port, 'PUBLISH', 'news', 'hello')
    assert.match((await subscribed.read(heard + 10)).slice(heard), /message/)
    await until(() => monitoring.text.includes('"PUBLISH" "news"'))
    cli(server.port, 'SET', 'a', '2')
    await until(() => tracking.text.includes('>2\r\n$10\r\ninvalidate'))
    watching.write(command('MULTI') + command('GET', 'a') + command('EXEC'))
    await until(() => watching.text.endsWith('+OK\r\n+QUEUED\r\n*-1\r\n'))
    cli(server.port, 'RPUSH', 'queue', 'x')
    await until(() => blocked.text.endsWith('$5\r\nqueue\r\n$1\r\nx\r\n'))
    subscribed.write(command('UNSUBSCRIBE'))
    await until(() => subscribed.text.endsWith(':0\r\n'))
    for (const [n, each] of [watching, blocked, subscribed].entries()) {
      each.write(command('SET', `moved-${n}`, '1'))
      await until(() => each.text.endsWith('+OK\r\n') && cli(next.port, 'EXISTS', `moved-${n}`) === '1')
    }
  })

  it('is ended at the drainDeadline, and told when it waits for a reply', async (t) => {
    const { waiting, transaction } = await left(t, { drainDeadline: '1s' })
    for (const each of [...Object.values(waiting), transaction]) await each.ended()
    assert.match(
      waiting.blocked.text,
      /-ERR ambassador: upstream_reset its endpoint left discovery 1000 ms ago, .*\r\n$/,
    )
    assert.match(transaction.text, /^\+OK\r\n\+QUEUED\r\n/)
  })
})
