/** An HTTP driver in front of endpoints on loopback, behind a listener as the proxy makes it. */
import type {
  AccessLogConfig,
  BreakerConfig,
  ClusterConfig,
  RateLimitConfig,
  RetryConfig,
  TimeoutsConfig,
} from '../../common/proxy-config.ts'
import { HttpCells } from '../../proxy/observe/cells.ts'
import type { HeaderCredential } from '../../proxy/policy/credential.ts'
import { RateLimit } from '../../proxy/policy/rate-limit.ts'
import { HttpDriver } from '../../proxy/protocol/http1/driver.ts'
import type { HttpRecord } from '../../proxy/protocol/http1/record.ts'
import { type HttpSnapshot, httpUpstream, retryPlan } from '../../proxy/protocol/http1/snapshot.ts'
import type { UpstreamTls } from '../../proxy/tls/upstream-tls.ts'
import { Cluster } from '../../proxy/upstream/cluster.ts'
import type { Address, Discovery } from '../../proxy/upstream/discovery/discovery.ts'
import { HttpTestClient } from './http-client.ts'
import { serving } from './serving.ts'

export interface HttpProxySetup {
  /** Of the endpoints. */
  readonly ports?: readonly number[]
  /** Of the endpoints. Default 127.0.0.1. */
  readonly host?: string
  /** Each endpoint of a lower priority than the one before. Default: all the same. */
  readonly isRanked?: boolean
  readonly tls?: UpstreamTls
  readonly credential?: HeaderCredential
  readonly limits?: Partial<ClusterConfig['limits']>
  /** Other fields of the cluster. */
  readonly cluster?: Partial<ClusterConfig>
  readonly breaker?: BreakerConfig | null
  /** Default: none. `{}`: three retries of everything, with backoffs of a millisecond or two. */
  readonly retry?: Partial<RetryConfig>
  readonly timeouts?: Partial<TimeoutsConfig>
  readonly rateLimit?: RateLimitConfig
  readonly accessLog?: AccessLogConfig
  readonly tracing?: HttpSnapshot['tracing']
  /** Most connections of the application. */
  readonly maxClients?: number
  /** Tells of the endpoints only when the test does. */
  readonly isLate?: boolean
  /** In place of the ports: how endpoints are found. */
  readonly discovery?: Discovery
}

/** The statuses that `5xx` stands for. */
export const SERVER_ERRORS: readonly number[] = Array.from({ length: 100 }, (_, i) => 500 + i).filter(
  (status) => status !== 501 && status !== 505,
)

export function retryConfig(retry: Partial<RetryConfig>): RetryConfig {
  return {
    maxRetries: 3,
    on: ['ConnectFailure', 'Reset', 'Timeout'],
    statuses: [429, ...SERVER_ERRORS],
    perTryTimeoutMs: null,
    backoff: { initialMs: 1, maxMs: 2 },
    budget: { ratio: 1, minPerSecond: 100 },
    maxBufferedBodyBytes: 64 * 1024,
    methods: 'Idempotent',
    ...retry,
  }
}

/** Starts one; `ends` gets what ends it and its clients. */
export async function httpProxy(setup: HttpProxySetup, ends: (() => unknown)[]) {
  let tell: (addresses: readonly Address[]) => void = () => {}
  const addressesOf = (ports: readonly number[]): Address[] =>
    ports.map((port, index) => ({
      host: setup.host ?? '127.0.0.1',
      ip: '127.0.0.1',
      port,
      weight: 1,
      priority: setup.isRanked === true ? index : 0,
    }))
  const discovery: Discovery = {
    failure: setup.isLate === true ? "'late.example' does not resolve" : null,
    start: (onChange) => {
      tell = onChange
      if (setup.isLate !== true) onChange(addressesOf(setup.ports ?? []))
    },
    refresh: () => {},
    stop: () => {},
  }
  const retry = setup.retry === undefined ? null : retryConfig(setup.retry)
  const cluster = new Cluster(
    {
      config: {
        name: 'live',
        discovery: { kind: 'dns', hostname: 'unused', port: 1 },
        tls: null,
        auth: null,
        circuitBreaker: setup.breaker ?? null,
        limits: { maxConnections: 100, maxPendingRequests: 10, maxConcurrentRetries: 3, ...setup.limits },
        ...setup.cluster,
      },
      tls: setup.tls ?? null,
      budget: retry?.budget ?? null,
      probeTimeoutMs: 5000,
      queue: 'Newest',
    },
    { discover: () => setup.discovery ?? discovery },
  )
  cluster.start()
  const cells = new HttpCells()
  const snapshot: HttpSnapshot = {
    upstream: httpUpstream(cluster, setup.credential ?? null, cells),
    retry: retryPlan(retry),
    timeouts: { connectMs: 2000, requestMs: null, idleMs: null, ...setup.timeouts },
    rateLimit: setup.rateLimit === undefined ? null : new RateLimit(setup.rateLimit),
    route: null,
    router: null,
    accessLog: setup.accessLog ?? { mode: 'All', sample: 0 },
    tracing: setup.tracing ?? null,
  }
  const records: HttpRecord[] = []
  const troubles: { reason: string; detail: string }[] = []
  const wake: (() => void)[] = []
  const driver = new HttpDriver({
    snapshot,
    maxClients: setup.maxClients ?? 16_384,
    onLogged: (record) => {
      records.push(record)
      for (const each of wake.splice(0)) each()
    },
    onTrouble: (reason, detail) => troubles.push({ reason, detail }),
  })
  const listener = serving((accepted) => driver.serve(accepted))
  ends.push(async () => {
    driver.destroy()
    cluster.destroy()
    listener.close()
  })
  return {
    driver,
    cluster,
    cells,
    snapshot,
    records,
    troubles,
    port: listener.port,
    /** Tells the discovery's endpoints. */
    found: (ports: readonly number[]) => tell(addressesOf(ports)),
    /** Resolves when `count` exchanges have been recorded. */
    recorded: async (count: number): Promise<readonly HttpRecord[]> => {
      while (records.length < count) await new Promise<void>((resolve) => wake.push(resolve))
      return records
    },
    connect: (): HttpTestClient => {
      const client = new HttpTestClient({ port: listener.port })
      ends.push(() => client.socket.destroy())
      return client
    },
  }
}
