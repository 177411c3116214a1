import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import { PRODUCT_VERSION } from '../../../common/names.ts'
import type { ClusterConfig, ProxyConfig } from '../../../common/proxy-config.ts'
import { ProxyApp, type ProxyOptions } from '../../../proxy/app.ts'
import { mountedSource } from '../../../proxy/config/load.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { ProxyLog } from '../../../proxy/observe/log.ts'
import { type LineAnswer, LineDriver } from '../../helpers/line-driver.ts'
import { Lateness } from '../../helpers/on-time.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { Volumes } from '../../helpers/volume.ts'

type LogLine = Record<string, unknown> & { readonly msg: string }

/** A ProxyApp over volumes as kubelet writes them, with the fake LineDriver, and what a test wants to know of it. */
class World {
  readonly volumes = new Volumes()
  readonly lines: LogLine[] = []
  readonly drivers: LineDriver[] = []
  #app: ProxyApp | null = null
  readonly #sockets: Socket[] = []
  #wake = () => {}

  get app(): ProxyApp {
    assert.ok(this.#app)
    return this.#app
  }

  async start(names: readonly string[], options: Partial<ProxyOptions> = {}): Promise<ProxyApp> {
    const log = new ProxyLog({
      level: 'debug',
      write: (line) => {
        this.lines.push(JSON.parse(line))
        this.#wake()
      },
    })
    this.#app = new ProxyApp({
      sources: names.map((name) => mountedSource(this.volumes.configDir, 'shop', name)),
      dirs: this.volumes.dirs,
      telemetryPort: 0,
      adminPort: 0,
      readiness: 'Listening',
      sidecarMode: 'Native',
      drainMs: 5000,
      podName: 'pod-1',
      log,
      discover: () => ({ start() {}, refresh() {}, failure: null, stop() {} }),
      makeDriver: (snapshot, trouble) => {
        const driver = new LineDriver(snapshot, trouble)
        this.drivers.push(driver)
        return driver
      },
      onQuit: () => {},
      watch: { debounceMs: 5, pollMs: 600_000 },
      lingerMs: 50,
      ...options,
    })
    await this.#app.start()
    return this.#app
  }

  /** Resolves when a log line with this message was written since the last call. */
  async logged(message: string): Promise<LogLine> {
    for (;;) {
      const index = this.lines.findIndex((line) => line.msg === message)
      if (index >= 0) return this.lines.splice(0, index + 1).at(-1) as LogLine
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }

  async connect(port: number): Promise<Socket> {
    const socket = connect(port, '127.0.0.1')
    this.#sockets.push(socket)
    socket.on('error', () => {})
    await once(socket, 'connect')
    return socket
  }

  async end(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await this.#app?.stop('Native')
    this.volumes.remove()
  }
}

let world = new World()
afterEach(async () => {
  await world.end()
  world = new World()
})

async function ask(socket: Socket, line = 'what'): Promise<LineAnswer> {
  socket.write(`${line}\n`)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  return JSON.parse(chunk.toString())
}

const TOKEN = { kind: 'secret', name: 'token', key: 'token' } as const

interface ConfigOptions {
  readonly cluster?: Partial<ClusterConfig>
  readonly generation?: number
  readonly name?: string
  readonly change?: Partial<ProxyConfig>
}

function config(port: number, { cluster, generation = 1, name = 'payments', change }: ConfigOptions = {}): ProxyConfig {
  const base = plainConfig({
    namespace: 'shop',
    host: '127.0.0.1',
    port: 1,
    listenPort: port,
    protocol: 'HTTP',
    tls: null,
  })
  const content = {
    ...base,
    ambassador: { namespace: 'shop', name, generation },
    clusters: base.clusters.map((each) => ({ ...each, ...cluster })),
    ...change,
  }
  return { ...content, hash: configHash(content) }
}

const withToken = { auth: { kind: 'bearer', token: TOKEN } } as const

describe('a config that changes', () => {
  it('is in force for the next request of a connection that is open', async () => {
    const port = await freePort()
    const [one, two] = [
      config(port),
      config(port, { generation: 2, change: { accessLog: { mode: 'All', sample: 0 } } }),
    ]
    world.volumes.config('payments', one)
    await world.start(['payments'])
    const socket = await world.connect(port)
    assert.equal((await ask(socket)).hash, one.hash)
    assert.equal((await world.logged('config in force'))['detail'], undefined)
    world.volumes.config('payments', two)
    assert.equal((await world.logged('config in force'))['detail'], 'changed: accessLog.mode')
    assert.equal((await ask(socket)).hash, two.hash)
    const [report] = world.app.configz().ambassadors
    assert.equal(report?.hash, two.hash)
    assert.equal(report?.generation, 2)
    assert.equal(report?.rejected, null)
  })

  it('keeps the clusters whose own part is the same', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    const socket = await world.connect(port)
    const before = await ask(socket)
    await world.logged('config in force')
    world.volumes.config(
      'payments',
      config(port, { change: { rateLimit: { requests: 1, perMs: 1, burst: 1, onLimit: 'Reject', maxDelayMs: 0 } } }),
    )
    await world.logged('config in force')
    const after = await ask(socket)
    assert.notEqual(after.hash, before.hash)
    assert.equal(after.clusterId, before.clusterId)
  })

  it('takes over a new generation alone without touching anything', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    await world.logged('config in force')
    const since = world.app.configz().ambassadors[0]?.since
    world.volumes.config('payments', config(port, { generation: 7 }))
    await world.app.reload()
    const [report] = world.app.configz().ambassadors
    assert.equal(report?.generation, 7)
    assert.equal(report?.since, since)
    assert.deepEqual(
      world.lines.filter((line) => line.msg === 'config in force'),
      [],
    )
  })
})

describe('a config that cannot be put in force', () => {
  const cases: readonly (readonly [string, (port: number, world: World) => unknown, string, RegExp])[] = [
    ['that is not JSON', () => '{"version":', 'Invalid', /^config file '.*\/payments\/config\.json' is not JSON: /],
    [
      'that breaks the schema',
      (port) => ({ ...config(port, { generation: 2 }), protocol: 'gRPC' }),
      'Invalid',
      /^config file '.*': config: protocol: 'gRPC' is not allowed, use HTTP or TCP or /,
    ],
    [
      'of another Ambassador',
      (port) => config(port, { generation: 2, name: 'orders' }),
      'Invalid',
      /^config file '.*' is of Ambassador 'orders', not of 'payments', mount the right one$/,
    ],
    [
      'that refers to a Secret which the pod does not mount',
      (port) => config(port, { generation: 2, cluster: withToken }),
      'NotMounted',
      /^upstream 'upstream': auth\.bearer: Secret 'token' is not mounted in this pod, restart the pod to mount it$/,
    ],
    [
      'that refers to a key which is missing',
      (port, { volumes }) => {
        volumes.secret('token', { other: 'x' })
        return config(port, { generation: 2, cluster: withToken })
      },
      'MissingRef',
      /^upstream 'upstream': auth\.bearer: Secret 'token' has no key 'token', add it$/,
    ],
    [
      'that refers to a token with a line break inside',
      (port, { volumes }) => {
        volumes.secret('token', { token: 'a\nb' })
        return config(port, { generation: 2, cluster: withToken })
      },
      'InvalidRef',
      /^upstream 'upstream': auth\.bearer: Secret 'token', key 'token' has a line break inside, put one line there$/,
    ],
    [
      'whose CA does not parse',
      (port, { volumes }) => {
        volumes.configMap('ca', { 'ca.crt': 'not a certificate' })
        const ca = { kind: 'configMap', name: 'ca', key: 'ca.crt' } as const
        const tls = { serverName: null, ca, clientCertificate: null, minVersion: 'TLSv1.2' } as const
        return config(port, { generation: 2, cluster: { tls } })
      },
      'InvalidRef',
      /^upstream 'upstream': tls\.ca: ConfigMap 'ca', key 'ca\.crt' has no certificate, put one there in PEM form$/,
    ],
  ]
  for (const [what, make, reason, message] of cases) {
    it(`leaves the last good one serving: ${what}`, async () => {
      const port = await freePort()
      const good = config(port)
      world.volumes.config('payments', good)
      await world.start(['payments'])
      const socket = await world.connect(port)
      world.volumes.config('payments', make(port, world))
      await world.logged('config not in force, the last good one is kept')
      assert.equal((await ask(socket)).hash, good.hash)
      const [report] = world.app.configz().ambassadors
      assert.equal(report?.hash, good.hash)
      assert.equal(report?.generation, 1)
      assert.equal(report?.rejected?.reason, reason)
      assert.match(report?.rejected?.message ?? '', message)
      assert.deepEqual(world.app.unready(), [])
    })
  }

  it('is put in force as soon as what it refers to is there', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    world.volumes.secret('token', {})
    await world.start(['payments'])
    const next = config(port, { generation: 2, cluster: withToken })
    world.volumes.config('payments', next)
    await world.logged('config not in force, the last good one is kept')
    assert.deepEqual(world.app.configz().ambassadors[0]?.refs, [
      {
        ref: TOKEN,
        state: 'Missing',
        message:
          "upstream 'upstream': auth.bearer: Secret 'token' does not exist or is empty, create it with the key 'token'",
      },
    ])
    world.volumes.secret('token', { token: 'abc' })
    await world.logged('config in force')
    const answer = await ask(await world.connect(port))
    assert.equal(answer.hash, next.hash)
    assert.equal(answer.credential, 'Authorization: Bearer abc\r\n')
    const [report] = world.app.configz().ambassadors
    assert.equal(report?.rejected, null)
    assert.deepEqual(report?.refs, [{ ref: TOKEN, state: 'Found', message: '' }])
  })

  it('is put in force when it is the first one, and what needs the reference is refused', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port, { cluster: withToken }))
    await world.start(['payments'])
    await world.logged('config in force, but what it refers to is not usable')
    assert.equal((await ask(await world.connect(port))).credential, null)
    assert.equal(world.app.configz().ambassadors[0]?.refs[0]?.state, 'NotMounted')
    // Nothing serves, so a change is not refused for what it refers to.
    world.volumes.config(
      'payments',
      config(port, { generation: 2, cluster: { auth: { kind: 'header', name: 'X', value: TOKEN } } }),
    )
    await world.logged('config in force, but what it refers to is not usable')
    assert.equal(world.app.configz().ambassadors[0]?.generation, 2)
  })

  it('is reported once, however often it is read', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    world.volumes.config('payments', 'x')
    await world.logged('config not in force, the last good one is kept')
    const at = world.app.configz().ambassadors[0]?.rejected?.at
    await world.app.reload()
    await world.app.reload()
    assert.deepEqual(world.lines, [])
    assert.equal(world.app.configz().ambassadors[0]?.rejected?.at, at)
  })

  it('that is not there yet leaves the sidecar running and not ready, and is served when it comes', async () => {
    const port = await freePort()
    await world.start(['payments'])
    const [report] = world.app.configz().ambassadors
    assert.equal(report?.hash, null)
    assert.equal(report?.rejected?.reason, 'Unreadable')
    assert.equal(world.app.unready().length, 1)
    assert.match(world.app.unready()[0] ?? '', /^ambassador 'payments': config file '.*' does not exist, wait/)
    world.volumes.config('payments', config(port))
    await world.logged('config in force')
    assert.deepEqual(world.app.unready(), [])
    assert.equal((await ask(await world.connect(port))).name, 'payments')
  })
})

describe('ports that Ambassadors of one pod want of each other', () => {
  const names = ['payments', 'orders', 'stock']
  for (const count of [2, 3]) {
    it(`are exchanged by ${count} in one change, and both an open and a new connection are answered all the time`, async () => {
      const ring = names.slice(0, count)
      const ports: number[] = []
      for (const name of ring) {
        const port = await freePort()
        ports.push(port)
        world.volumes.config(name, config(port, { name }))
      }
      await world.start(ring)
      const open = await Promise.all(ports.map((port) => world.connect(port)))
      let isOver = false
      const refused: unknown[] = []
      const knocking = (async () => {
        while (!isOver) for (const port of ports) await world.connect(port).catch((error) => refused.push(error))
      })()
      for (const [i, name] of ring.entries())
        world.volumes.config(name, config(ports[(i + 1) % count]!, { name, generation: 2 }))
      await world.app.reload()
      const reports = world.app.configz().ambassadors
      assert.deepEqual(
        reports.map(({ generation, rejected }) => [generation, rejected]),
        ring.map(() => [2, null]),
      )
      for (const [i, port] of ports.entries()) {
        assert.equal((await ask(await world.connect(port))).name, ring[(i + count - 1) % count])
        assert.equal((await ask(open[i]!)).name, ring[i], 'an open connection stays with its Ambassador')
      }
      isOver = true
      await knocking
      assert.deepEqual(refused, [])
    })
  }

  it('stay where they are when one of them is not given up', async () => {
    const [mine, theirs, third] = [await freePort(), await freePort(), await freePort()]
    world.volumes.config('payments', config(mine, { name: 'payments' }))
    world.volumes.config('orders', config(theirs, { name: 'orders' }))
    await world.start(['payments', 'orders'])
    world.volumes.config('payments', config(theirs, { name: 'payments', generation: 2 }))
    await world.app.reload()
    const [report] = world.app.configz().ambassadors
    assert.match(report?.rejected?.message ?? '', /in use by Ambassador 'orders' of this pod/)
    assert.equal((await ask(await world.connect(mine))).name, 'payments')
    world.volumes.config('orders', config(third, { name: 'orders', generation: 2 }))
    await world.app.reload()
    assert.equal((await ask(await world.connect(theirs))).name, 'payments')
    assert.equal((await ask(await world.connect(third))).name, 'orders')
  })
})

describe('a Secret that changes', () => {
  it('is used by the next request, and the last good value when it becomes unusable', async () => {
    const port = await freePort()
    world.volumes.secret('token', { token: 'one' })
    world.volumes.config('payments', config(port, { cluster: withToken }))
    await world.start(['payments'])
    const socket = await world.connect(port)
    assert.equal((await ask(socket)).credential, 'Authorization: Bearer one\r\n')
    const becomes = async (value: string | null) => {
      while ((await ask(socket)).credential !== value) await new Promise((resolve) => setImmediate(resolve))
    }
    for (let i = 0; i < 5; i++) {
      world.volumes.secret('token', { token: `rotated-${i}` })
      await becomes(`Authorization: Bearer rotated-${i}\r\n`)
    }
    world.volumes.secret('token', { token: 'bro\nken' })
    const state = () => world.app.configz().ambassadors[0]?.refs[0]?.state
    while (state() !== 'Invalid') await new Promise((resolve) => setImmediate(resolve))
    assert.equal((await ask(socket)).credential, 'Authorization: Bearer rotated-4\r\n')
    // Nothing of a value is in what anybody can read.
    const said = JSON.stringify([world.app.configz(), world.lines])
    assert.doesNotMatch(said, /rotated|bro\\+nken/)
  })

  it('gives new TLS contexts when a CA is rotated, and keeps the last good one over a broken pair', async () => {
    const pki = new Pki()
    const port = await freePort()
    const [a, b] = [pki.authority('A'), pki.authority('B')]
    const [leafA, leafB] = [a.issue(), b.issue()]
    pki.remove()
    world.volumes.secret('client', { 'tls.crt': leafA.cert, 'tls.key': leafA.key, 'ca.crt': a.cert })
    const ref = (key: string) => ({ kind: 'secret', name: 'client', key }) as const
    const clientCertificate = { certificate: ref('tls.crt'), privateKey: ref('tls.key') }
    const tls = { serverName: null, ca: ref('ca.crt'), clientCertificate, minVersion: 'TLSv1.2' } as const
    world.volumes.config('payments', config(port, { cluster: { tls } }))
    await world.start(['payments'])
    const socket = await world.connect(port)
    const first = await ask(socket)
    assert.equal(first.tls, 'ready')
    world.volumes.secret('client', { 'tls.crt': leafB.cert, 'tls.key': leafB.key, 'ca.crt': b.cert })
    await world.logged('TLS files replaced')
    const second = await ask(socket)
    assert.notEqual(second.contextId, first.contextId)
    assert.equal(second.clusterId, first.clusterId)
    world.volumes.secret('client', { 'tls.crt': leafA.cert, 'tls.key': leafB.key, 'ca.crt': b.cert })
    await world.logged('TLS files are not usable, the last good ones are kept')
    assert.equal((await ask(socket)).contextId, second.contextId)
  })
})

describe('the port of an Ambassador', () => {
  it('moves without a moment in which neither answers, and is answered on for a while', async () => {
    const [from, to] = [await freePort(), await freePort()]
    world.volumes.config('payments', config(from))
    await world.start(['payments'], { lingerMs: 60_000 })
    const next = config(to, { generation: 2 })
    world.volumes.config('payments', next)
    while (!(await connects(to))) assert.equal(await connects(from), true)
    // Both now; the old one too with the new config.
    assert.equal((await ask(await world.connect(from))).hash, next.hash)
    assert.equal((await ask(await world.connect(to))).hash, next.hash)
  })

  it('is closed when that while is over, but for the connections that were made to it', async () => {
    const [from, to] = [await freePort(), await freePort()]
    world.volumes.config('payments', config(from))
    await world.start(['payments'])
    const open = await world.connect(from)
    const next = config(to, { generation: 2 })
    world.volumes.config('payments', next)
    await world.app.reload()
    while (await connects(from)) await new Promise((resolve) => setTimeout(resolve, 10))
    // A connection that was made to the old port lives on.
    assert.equal((await ask(open)).hash, next.hash)
    assert.equal(await connects(to), true)
  })

  it('moves back while the old one is still answered on', async () => {
    const [from, to] = [await freePort(), await freePort()]
    world.volumes.config('payments', config(from))
    await world.start(['payments'], { lingerMs: 60_000 })
    world.volumes.config('payments', config(to, { generation: 2 }))
    await world.app.reload()
    world.volumes.config('payments', config(from, { generation: 3 }))
    await world.app.reload()
    assert.equal(world.app.configz().ambassadors[0]?.generation, 3)
    assert.equal(await connects(from), true)
    // Now the other one is answered on for a while.
    assert.equal(await connects(to), true)
  })

  it('stays when another process has the new one, and moves when that has gone', async () => {
    const [from, to] = [await freePort(), await freePort()]
    const other = createServer().listen(to, '127.0.0.1')
    await once(other, 'listening')
    world.volumes.config('payments', config(from))
    await world.start(['payments'])
    world.volumes.config('payments', config(to, { generation: 2 }))
    await world.logged('config not in force, the last good one is kept')
    const rejected = world.app.configz().ambassadors[0]?.rejected
    assert.equal(rejected?.reason, 'PortInUse')
    assert.equal(
      rejected?.message,
      `port ${to} on 127.0.0.1 is in use by another process of this pod, give one of the two another port`,
    )
    assert.equal(await connects(from), true)
    other.close()
    await once(other, 'close')
    await world.app.reload()
    assert.equal(await connects(to), true)
    while (await connects(from)) await new Promise((resolve) => setTimeout(resolve, 10))
  })

  it('that another process has at the start ends the start with a sentence', async () => {
    const port = await freePort()
    const other = createServer().listen(port, '::1')
    await once(other, 'listening')
    world.volumes.config('payments', config(port))
    await assert.rejects(world.start(['payments']), {
      name: 'StartError',
      message: `ambassador 'payments': port ${port} on ::1 is in use by another process of this pod, give one of the two another port`,
    })
    other.close()
  })

  it('belongs to the first of two Ambassadors, and the second says so', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    world.volumes.config('orders', config(port, { name: 'orders' }))
    await world.start(['payments', 'orders'])
    assert.equal((await ask(await world.connect(port))).name, 'payments')
    const message = `port ${port} is in use by Ambassador 'payments' of this pod, give one of the two another port`
    assert.deepEqual(world.app.unready(), [`ambassador 'orders': ${message}`])
    assert.equal(world.app.configz().ambassadors[1]?.rejected?.reason, 'PortInUse')
  })

  it('that one Ambassador leaves can be taken by another in the same moment', async () => {
    const [a, b] = [await freePort(), await freePort()]
    world.volumes.config('payments', config(a))
    world.volumes.config('orders', config(b, { name: 'orders' }))
    // Orders is asked first, while payments still has the port.
    await world.start(['orders', 'payments'], { lingerMs: 60_000 })
    const c = await freePort()
    world.volumes.config('orders', config(a, { name: 'orders', generation: 2 }))
    world.volumes.config('payments', config(c, { generation: 2 }))
    await world.app.reload()
    assert.equal((await ask(await world.connect(a))).name, 'orders')
    assert.equal((await ask(await world.connect(c))).name, 'payments')
  })

  it('cannot be one of the sidecar itself', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    world.volumes.config('payments', config(world.app.adminPort, { generation: 2 }))
    await world.logged('config not in force, the last good one is kept')
    assert.equal(
      world.app.configz().ambassadors[0]?.rejected?.message,
      `port ${world.app.adminPort} is in use by the administration of this sidecar, give one of the two another port`,
    )
  })
})

describe('the protocol of an Ambassador', () => {
  it('changes for new connections; those of the old one end when they are idle', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    const [idle, busy] = [await world.connect(port), await world.connect(port)]
    await ask(idle)
    busy.write('hold\n')
    await once(busy, 'data')
    await world.logged('config in force')
    const closed = once(idle, 'close')
    world.volumes.config('payments', config(port, { generation: 2, change: { protocol: 'TCP', retry: null } }))
    await world.logged('config in force')
    await closed
    assert.equal((await ask(await world.connect(port))).protocol, 'TCP')
    assert.equal((await ask(busy, 'release')).protocol, 'HTTP')
    assert.equal(world.drivers.length, 2)
  })
})

describe('Ambassadors of `ambassador run`', () => {
  it('come and go while others serve', async () => {
    const [a, b] = [await freePort(), await freePort()]
    world.volumes.config('payments', config(a))
    world.volumes.config('orders', config(b, { name: 'orders' }))
    await world.start(['payments'])
    const socket = await world.connect(a)
    const source = (name: string) => mountedSource(world.volumes.configDir, 'shop', name)
    await world.app.replace([source('payments'), source('orders')])
    assert.equal((await ask(await world.connect(b))).name, 'orders')
    await world.app.replace([source('orders')])
    assert.equal(await connects(a), false)
    assert.equal((await ask(await world.connect(b))).name, 'orders')
    socket.destroy()
  })
})

describe('/configz', () => {
  it('has exactly this shape', async () => {
    const port = await freePort()
    world.volumes.secret('token', { token: 'abc' })
    world.volumes.config('payments', config(port, { cluster: withToken }))
    await world.start(['payments', 'orders'])
    const text = await (await fetch(`http://127.0.0.1:${world.app.telemetryPort}/configz`)).text()
    const at = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
    const configz = JSON.parse(text, (key, value) =>
      ['startedAt', 'since', 'at'].includes(key) && at.test(value) ? 'a time' : value,
    )
    assert.deepEqual(configz, {
      version: PRODUCT_VERSION,
      pod: 'pod-1',
      startedAt: 'a time',
      ambassadors: [
        {
          namespace: 'shop',
          name: 'payments',
          hash: config(port, { cluster: withToken }).hash,
          generation: 1,
          since: 'a time',
          rejected: null,
          refs: [{ ref: TOKEN, state: 'Found', message: '' }],
          lastError: null,
          endpointsHash: null,
          unready: [],
        },
        {
          namespace: 'shop',
          name: 'orders',
          hash: null,
          generation: null,
          since: null,
          rejected: {
            hash: null,
            generation: null,
            reason: 'Unreadable',
            message: `config file '${world.volumes.configDir}/orders/config.json' does not exist, wait for the operator or create it`,
            at: 'a time',
          },
          refs: [],
          lastError: null,
          endpointsHash: null,
          unready: [
            `config file '${world.volumes.configDir}/orders/config.json' does not exist, wait for the operator or create it`,
          ],
        },
      ],
    })
  })
})

describe('readiness UpstreamHealthy', () => {
  it('waits for endpoints, TLS and credentials', async () => {
    const port = await freePort()
    world.volumes.secret('token', {})
    world.volumes.config('payments', config(port, { cluster: withToken }))
    await world.start(['payments'], { readiness: 'UpstreamHealthy' })
    const unready = () => world.app.unready()[0]?.replace("ambassador 'payments': upstream 'upstream': ", '')
    assert.match(unready() ?? '', /^auth\.bearer: Secret 'token' does not exist/)
    world.volumes.secret('token', { token: 'x' })
    while (unready()?.startsWith('auth')) await new Promise((resolve) => setImmediate(resolve))
    assert.equal(unready(), 'its endpoints are not known yet')
    const readyz = `http://127.0.0.1:${world.app.telemetryPort}/readyz`
    assert.equal((await fetch(readyz)).status, 503)
    // The startup probe asks only whether it listens.
    assert.equal((await fetch(`${readyz}?startup`)).status, 200)
  })
})

describe('a drain', () => {
  it('finishes what is in flight, refuses new connections and is not ready, while telemetry goes on', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    const [idle, busy] = [await world.connect(port), await world.connect(port)]
    await ask(idle)
    busy.write('hold\n')
    await once(busy, 'data')
    const closed = once(idle, 'close')
    let isDrained = false
    const drained = world.app.drain().then(() => {
      isDrained = true
    })
    await closed
    assert.equal(await connects(port), false)
    assert.deepEqual(world.app.unready(), ['draining'])
    assert.equal(isDrained, false)
    const answer = await fetch(`http://127.0.0.1:${world.app.telemetryPort}/readyz`)
    assert.equal(answer.status, 503)
    assert.equal(await answer.text(), 'draining\n')
    busy.write('release\n')
    await drained
  })

  it('ends in time over a connection that does not', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'], { drainMs: 200 })
    const busy = await world.connect(port)
    busy.write('hold\n')
    await once(busy, 'data')
    const closed = once(busy, 'close')
    const startedAt = performance.now()
    await world.app.stop('Native')
    await closed
    const tookMs = performance.now() - startedAt
    assert.ok(tookMs >= 190 && tookMs < 30_000, `took ${tookMs} ms`)
    await world.logged('connections are cut, they did not end in time')
  })
})

describe('a stop in the legacy order', () => {
  it('goes on serving new connections until the application has had none for a while', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'], { drainMs: 2000 })
    const first = await world.connect(port)
    await ask(first)
    const lateness = new Lateness()
    const startedAt = performance.now()
    const stopped = world.app.stop('Legacy')
    // The application opens another one later than the sidecar was told to stop.
    const second = await world.connect(port)
    await ask(second)
    assert.equal(world.app.configz().ambassadors[0]?.name, 'payments')
    first.destroy()
    second.destroy()
    await stopped
    const tookMs = performance.now() - startedAt
    // drainMs / 2 of quiet, and less than the whole, which is 1800: both ends of it are in this process.
    assert.ok(tookMs >= 990 && tookMs < 1800 + 3 * lateness.worstMs, `took ${tookMs} ms`)
    lateness.stop()
    assert.equal(await connects(port), false)
  })

  it('does not wait longer than it may for an application that stays', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'], { drainMs: 400 })
    const socket = await world.connect(port)
    await ask(socket)
    const startedAt = performance.now()
    await world.app.stop('Legacy')
    const tookMs = performance.now() - startedAt
    assert.ok(tookMs >= 350 && tookMs < 30_000, `took ${tookMs} ms`)
  })
})

describe('trouble on the data path', () => {
  it('is in /configz, the last of it, with its time', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    const socket = await world.connect(port)
    await ask(socket, 'trouble one')
    await ask(socket, 'trouble two')
    const lastError = world.app.configz().ambassadors[0]?.lastError
    assert.equal(lastError?.reason, 'connect_refused')
    assert.equal(lastError?.message, 'two')
    assert.ok(Date.parse(lastError?.at ?? '') > 0)
  })

  it('shows what went wrong, and not that a circuit is open because of it', async () => {
    const port = await freePort()
    world.volumes.config('payments', config(port))
    await world.start(['payments'])
    const [driver] = world.drivers
    const lastError = () => world.app.configz().ambassadors[0]?.lastError
    driver?.trouble('circuit_open', 'nothing else is known')
    assert.equal(lastError()?.reason, 'circuit_open')
    driver?.trouble('tls_verify_failed', 'the cause')
    driver?.trouble('circuit_open', 'what follows')
    assert.equal(lastError()?.message, 'the cause')
  })
})

async function connects(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
