import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { after, before, describe, it } from 'node:test'
import pg from 'pg'
import { endsOfEach } from '../../helpers/ends.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { MountedFiles, postgresProxy } from '../../helpers/postgres-proxy.ts'
import { closedPort, TestClient, tcpServer } from '../../helpers/tcp.ts'

const mounts = new MountedFiles()
const ends = endsOfEach()
before(() => mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD))
after(() => mounts.remove())

const auth = (name = 'db') => ({
  postgres: { username: POSTGRES_USER, password: { secretKeyRef: { name, key: 'password' } } },
})
const endpoints = (...ports: readonly number[]) =>
  ports.map((port, priority) => ({ host: '127.0.0.1', port, priority, weight: 1 }))
const CHECK = { interval: '1s', timeout: '20s', unhealthyThreshold: 1, healthyThreshold: 1 }

const until = async (isReached: () => boolean): Promise<void> => {
  while (!isReached()) await new Promise((resolve) => setTimeout(resolve, 20))
}

/** Straight to a server. */
async function ask(port: number, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}

/** A primary and the standby that follows it, with a table. */
async function pair() {
  const primary = await postgresServer({}, ends)
  await ask(primary.port, 'create table orders (id serial primary key, at timestamptz default now())')
  const standby = await postgresServer({ follows: primary.port }, ends)
  return { primary, standby }
}

/** Inserts in a transaction of its own, on a connection that is made anew when it is lost, until `isOver`. */
async function writer(options: pg.ClientConfig, isOver: () => boolean, written: number[]) {
  const failures: { code: string | undefined; message: string; isConnecting: boolean }[] = []
  let client: pg.Client | null = null
  let farewell: pg.DatabaseError | null = null
  while (!isOver()) {
    const isConnecting = client === null
    try {
      if (client === null) {
        const fresh = new pg.Client(options)
        farewell = null
        fresh.on('error', (error) => {
          farewell = error as pg.DatabaseError
        })
        await fresh.connect()
        client = fresh
      }
      const { rows } = await client.query('insert into orders default values returning id')
      written.push(rows[0].id)
    } catch (error) {
      // What came right behind the last answer is told as an event; the next statement then fails without a word of the server's.
      const { code, message } = farewell ?? (error as pg.DatabaseError)
      failures.push({ code, message, isConnecting })
      await client?.end().catch(() => {})
      client = null
    }
  }
  await client?.end().catch(() => {})
  return { failures, written }
}

describe('a failover of PostgreSQL', () => {
  it('cuts only what is in flight: new connections wait for the promotion, and none reaches the standby before', async () => {
    const { primary, standby } = await pair()
    const { options, told } = await postgresProxy(
      {
        upstreams: [{ name: 'db', endpoints: endpoints(primary.port, standby.port), auth: auth(), healthCheck: CHECK }],
        timeouts: { connect: '60s' },
      },
      mounts,
      ends,
    )
    let isOver = false
    const written: number[][] = [[], [], [], []]
    const writers = written.map((ids) => writer(options, () => isOver, ids))
    await until(() => told.length > 0)
    assert.match(told[0] ?? '', new RegExp(`^${standby.port}: .* is a standby .* the role of the upstream is Primary`))
    // Whoever is still logging in when the primary ends would be cut there.
    await until(() => written.every((ids) => ids.length > 0))
    await primary.stop('SIGQUIT')
    // Applications connect again meanwhile: they are to be held, and not to be let in at the standby.
    await until(() => told.some((text) => text.startsWith(`${primary.port}: `)))
    await ask(standby.port, 'select pg_promote()')
    await until(() => told.includes(`${standby.port}: well`))
    const before = Number((await ask(standby.port, 'select count(*) from orders')).rows[0].count)
    while (Number((await ask(standby.port, 'select count(*) from orders')).rows[0].count) < before + 20);
    isOver = true
    for (const { failures, written } of await Promise.all(writers)) {
      assert.ok(failures.length <= 1, JSON.stringify(failures))
      for (const { isConnecting, code, message } of failures) {
        // Not refused: at most let in and cut before it knew.
        if (isConnecting) assert.match(message, /the server is gone/)
        // A statement that meets a connection which has just ended is answered with a reset, and Node forgets the words before it.
        assert.match(code ?? `none: ${message}`, isConnecting ? /^(?:08|57)/ : /^(?:08|57|ECONNRESET|EPIPE)/)
      }
      assert.ok(written.length > 0)
    }
  })

  it('lets nobody write at a primary that comes back as a standby', async () => {
    const { primary, standby } = await pair()
    await primary.stop('SIGINT')
    await ask(standby.port, 'select pg_promote()')
    primary.demote(standby.port)
    await primary.start()
    const { options, told } = await postgresProxy(
      {
        upstreams: [{ name: 'db', endpoints: endpoints(primary.port, standby.port), auth: auth(), healthCheck: CHECK }],
      },
      mounts,
      ends,
    )
    await until(() => told.length > 0)
    assert.match(told[0] ?? '', new RegExp(`^${primary.port}: .* is a standby`))
    const client = new pg.Client(options)
    await client.connect()
    ends.push(() => client.end())
    const { rows } = await client.query('insert into orders default values returning inet_server_port() as port')
    assert.equal(rows[0].port, standby.port)
  })

  it('holds a connection while the server begins, and hands its own words on when that takes too long', async () => {
    // Answers as a server in recovery does, which a real one is only for a moment.
    let isReady = false
    const { port: behind } = await postgresServer({}, ends)
    const front = await tcpServer((socket) => {
      socket.on('error', () => {})
      if (isReady) {
        const inner = connect(behind, '127.0.0.1')
        inner.on('error', () => {})
        socket.pipe(inner).pipe(socket)
        return
      }
      socket.once('data', () => {
        const text = Buffer.from('SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0')
        const head = Buffer.from([0x45, 0, 0, 0, 4 + text.length])
        socket.end(Buffer.concat([head, text]))
      })
    })
    ends.push(() => front.close())
    const upstreams = [{ name: 'db', endpoints: endpoints(front.port), auth: auth() }]
    const { options } = await postgresProxy({ upstreams, timeouts: { connect: '30s' } }, mounts, ends)
    const client = new pg.Client(options)
    const connected = client.connect()
    await new Promise((resolve) => front.server.once('connection', () => front.server.once('connection', resolve)))
    isReady = true
    await connected
    await client.end()
    isReady = false
    const impatient = await postgresProxy({ upstreams, timeouts: { connect: '2s' } }, mounts, ends)
    const late = new pg.Client(impatient.options)
    await assert.rejects(late.connect(), { code: '57P03', message: 'the database system is starting up' })
  })
})

describe('a connection to PostgreSQL that is cut', () => {
  /** A hop before a real server that breaks connections as a network does. */
  async function hop() {
    const { port: behind } = await postgresServer({}, ends)
    const open = new Set<Socket>()
    const front = await tcpServer((socket) => {
      const inner = connect(behind, '127.0.0.1')
      for (const each of [socket, inner]) each.on('error', () => {})
      socket.pipe(inner).pipe(socket)
      open.add(socket)
    })
    ends.push(() => front.close())
    const upstreams = [{ name: 'db', endpoints: endpoints(front.port), auth: auth() }]
    const { options, port } = await postgresProxy({ upstreams }, mounts, ends)
    return { options, port, open, cut: (how: (socket: Socket) => void) => open.forEach(how) }
  }

  for (const [title, how] of [
    ['by a reset', (socket: Socket) => void socket.resetAndDestroy()],
    ['by an end without a word', (socket: Socket) => void socket.destroy()],
  ] as const) {
    it(`${title} tells the application so with 08006, idle or in a query`, async () => {
      const { options, cut } = await hop()
      const idle = new pg.Client(options)
      await idle.connect()
      // The library tells of the end of the connection behind that.
      const heard = new Promise<pg.DatabaseError>((resolve) => {
        idle.on('error', (error) => resolve(error as pg.DatabaseError))
      })
      const busy = new pg.Client(options)
      busy.on('error', () => {})
      await busy.connect()
      const running = busy.query('select pg_sleep(60)').then(
        () => assert.fail('it ended'),
        (error: pg.DatabaseError) => error,
      )
      cut(how)
      for (const error of [await heard, await running]) {
        assert.equal(error.code, '08006')
        assert.match(error.message, /the server is gone, and what was not committed is lost/)
        assert.equal(error.hint, 'ambassador: upstream_reset')
      }
    })
  }

  it('in the middle of a message is reset, so that nothing is taken for a part of it', async () => {
    const server = await tcpServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write(Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]))
        socket.once('data', () => {
          socket.write(Buffer.from([0x44, 0, 0, 0, 50, 0, 1, 0]), () => socket.resetAndDestroy())
        })
      })
    })
    ends.push(() => server.close())
    const upstreams = [{ name: 'db', endpoints: endpoints(server.port), auth: auth() }]
    const { port } = await postgresProxy({ upstreams }, mounts, ends)
    const client = new TestClient({ port })
    ends.push(() => client.socket.destroy())
    const startup = Buffer.from('\0\0\0\0\0\x03\0\0user\0a\0\0', 'latin1')
    startup[3] = startup.length
    client.write(startup)
    await client.read(15)
    client.write(Buffer.from('Q\0\0\0\x0dselect 1\0', 'latin1'))
    const answer = await client.ended().catch((error: NodeJS.ErrnoException) => String(error.code))
    assert.doesNotMatch(answer, /08006/)
  })
})

describe('the check of a PostgreSQL server', () => {
  it('says that the password is wrong, and that a server is not PostgreSQL', async () => {
    const { port } = await postgresServer({}, ends)
    const web = await tcpServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    ends.push(() => web.close())
    mounts.put('secrets', 'wrong', 'password', 'battery staple')
    const { told } = await postgresProxy(
      { upstreams: [{ name: 'db', endpoints: endpoints(port, web.port), auth: auth('wrong'), healthCheck: CHECK }] },
      mounts,
      ends,
    )
    await until(() => told.length > 1)
    const lines = told.toSorted().join('\n')
    assert.match(lines, new RegExp(`${port}: the server refused the login: 28P01 password authentication failed`))
    assert.match(lines, new RegExp(`${web.port}: the server does not speak the protocol of PostgreSQL`))
    assert.doesNotMatch(lines, /battery/)
  })

  it('asks where the user is let in, and passes over databases where it is not', async () => {
    const { port } = await postgresServer(
      { hba: ['host own all 127.0.0.1/32 scram-sha-256', `host postgres ${POSTGRES_USER} 127.0.0.1/32 reject`] },
      ends,
    )
    const healthCheck = { ...CHECK, unhealthyThreshold: 1 }
    const down = await closedPort()
    const upstream = { name: 'db', endpoints: endpoints(port, down), role: 'Any', auth: auth(), healthCheck } as const
    const { told } = await postgresProxy({ upstreams: [upstream] }, mounts, ends)
    await until(() => told.length > 0)
    assert.match(told[0] ?? '', new RegExp(`^${down}: .*ECONNREFUSED`))
    assert.equal(
      told.some((text) => text.startsWith(`${port}:`)),
      false,
    )
  })
})
