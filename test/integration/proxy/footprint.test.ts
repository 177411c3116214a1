/** What the bundled sidecar loads and leaves behind: counts, no times, so that a change that costs every pod memory is seen at once. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { Env } from '../../../common/names.ts'
import { configHash, type ProxyConfig } from '../../../common/proxy-config.ts'
import { built } from '../../helpers/built.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** None of these is for a sidecar that speaks plain HTTP to addresses; each costs 0.1 to 3 MB. */
const UNWANTED = [
  'http',
  'https',
  'tls',
  'crypto',
  'dns',
  'cluster',
  'child_process',
  'dgram',
  'worker_threads',
  'zlib',
]

/** Tells the test, in a line of the log, what was loaded and what was allocated so far. */
const PROBE = `
const before = new Set(process.moduleLoadList)
let loaded = null
process.on('SIGUSR2', () => {
  // Once, for this probe itself loads node:v8 then.
  loaded ??= process.moduleLoadList.filter((name) => !before.has(name))
  const allocated = process.getBuiltinModule('node:v8').getHeapStatistics().total_allocated_bytes
  process.stdout.write(JSON.stringify({ msg: 'probe', loaded, allocated }) + '\\n')
})
`

interface Probe {
  readonly loaded: readonly string[]
  readonly allocated: number
}

/** Requests whose cost is looked at, after as many that compile the way. */
const REQUESTS = 5_000
/** Measured: some 1,800, on the heap of V8 and with what is compiled meanwhile. Twice that is a change to look at. */
const MAX_BYTES_PER_REQUEST = 4_000

describe('the bundled sidecar', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-footprint-'))
  const upstream = createServer((_request, response) => response.end('ok'))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  let proxy: ProxyProcess
  let dist = ''
  let port = 0

  before(async () => {
    dist = (await built()).dist
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
    port = await freePort()
    const probe = join(directory, 'probe.cjs')
    writeFileSync(probe, PROBE)
    const { flags, env } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
    mkdirSync(join(directory, 'config/plain'), { recursive: true })
    const config = plainHttp(port, (upstream.address() as AddressInfo).port)
    writeFileSync(join(directory, 'config/plain/config.json'), JSON.stringify(config))
    const variables = {
      ...env,
      [Env.ambassadors]: 'plain',
      [Env.configDir]: join(directory, 'config'),
      [Env.podNamespace]: 'test',
    }
    proxy = await ProxyProcess.start(variables, [...flags, '--require', probe, join(dist, 'proxy.mjs')])
    await proxy.ready()
  })

  after(async () => {
    agent.destroy()
    await proxy.end()
    upstream.close()
    rmSync(directory, { recursive: true })
  })

  let probes = 0
  const probed = async (): Promise<Probe> => {
    const nth = ++probes
    proxy.kill('SIGUSR2')
    await proxy.line(() => proxy.log.filter(({ msg }) => msg === 'probe').length >= nth)
    return proxy.log.filter(({ msg }) => msg === 'probe')[nth - 1] as unknown as Probe
  }

  const get = () =>
    new Promise<void>((resolve, reject) => {
      const asked = request({ host: '127.0.0.1', port, path: '/', agent }, (answer) => {
        assert.equal(answer.statusCode, 200)
        answer.resume().on('end', resolve)
      })
      asked.on('error', reject).end()
    })

  it('loads nothing of Node that a plain HTTP sidecar does not need, neither at the start nor for requests, probes and scrapes', async () => {
    await get()
    for (const path of ['/livez', '/readyz', '/metrics', '/configz']) assert.equal((await proxy.get(path)).status, 200)
    const { loaded } = await probed()
    assert.ok(loaded.includes('NativeModule net'))
    assert.deepEqual(
      UNWANTED.filter((name) => loaded.includes(`NativeModule ${name}`)),
      [],
    )
  })

  it('has no schema library in the file that is read at its start', () => {
    const file = readdirSync(dist).find((name) => /^proxy\.[0-9a-f]+\.js$/.test(name)) ?? 'none'
    const text = readFileSync(join(dist, file), 'utf8')
    assert.match(text, /HttpDriver/)
    assert.doesNotMatch(text, /ZodObject|class Pino|prom-client/)
  })

  it('allocates little for a request', async () => {
    for (let i = 0; i < REQUESTS; i++) await get()
    const before = (await probed()).allocated
    for (let i = 0; i < REQUESTS; i++) await get()
    const perRequest = ((await probed()).allocated - before) / REQUESTS
    assert.ok(perRequest > 0 && perRequest < MAX_BYTES_PER_REQUEST, `${perRequest} bytes per request`)
  })
})

/** What the operator renders for the simplest Ambassador with the usual retries. */
function plainHttp(port: number, upstreamPort: number): ProxyConfig {
  const config: Omit<ProxyConfig, 'hash'> = {
    version: 1,
    ambassador: { namespace: 'test', name: 'plain', generation: 1 },
    protocol: 'HTTP',
    listener: { port },
    clusters: [
      {
        name: 'upstream',
        discovery: {
          kind: 'endpoints',
          endpoints: [{ host: '127.0.0.1', port: upstreamPort, weight: 1, priority: 0 }],
        },
        tls: null,
        auth: null,
        circuitBreaker: null,
        limits: { maxConnections: 100, maxPendingRequests: 50, maxConcurrentRetries: 3 },
      },
    ],
    retry: null,
    timeouts: { connectMs: 5_000, requestMs: 10_000, idleMs: 60_000 },
    rateLimit: null,
    routes: [],
    accessLog: { mode: 'Errors', sample: 0 },
  }
  return { ...config, hash: configHash(config) }
}
