/** A TCP driver in front of endpoints on loopback, behind a listener as the proxy makes it. */
import type { BreakerConfig, ClusterConfig, RateLimitConfig, TimeoutsConfig } from '../../common/proxy-config.ts'
import { RateLimit } from '../../proxy/policy/rate-limit.ts'
import { TcpDriver } from '../../proxy/protocol/tcp/driver.ts'
import type { TcpRecord } from '../../proxy/protocol/tcp/session.ts'
import type { TcpSnapshot } from '../../proxy/protocol/tcp/snapshot.ts'
import type { UpstreamTls } from '../../proxy/tls/upstream-tls.ts'
import { Cluster, type ClusterOptions } from '../../proxy/upstream/cluster.ts'
import type { Address, Discovery } from '../../proxy/upstream/discovery/discovery.ts'
import { serving } from './serving.ts'
import { TestClient } from './tcp.ts'

export interface TcpProxySetup {
  /** Of the endpoints. Default: none. */
  readonly ports?: readonly number[]
  /** Each endpoint of a lower priority than the one before. Default true. */
  readonly isRanked?: boolean
  /** Of the endpoints. Default 127.0.0.1. */
  readonly host?: string
  readonly tls?: UpstreamTls
  readonly limits?: Partial<ClusterConfig['limits']>
  readonly breaker?: BreakerConfig | null
  readonly timeouts?: Partial<TimeoutsConfig>
  readonly rateLimit?: RateLimitConfig
  /** Tells of the endpoints only when the test does. */
  readonly isLate?: boolean
  /** Of the config of the cluster, above what the rest says. */
  readonly cluster?: Partial<ClusterConfig>
  /** In place of the above: how endpoints are found. */
  readonly discovery?: Discovery
}

/** Starts one; `ends` gets what ends it and its clients. */
export async function tcpProxy(setup: TcpProxySetup, ends: (() => unknown)[]) {
  let tell: (addresses: readonly Address[]) => void = () => {}
  const addressesOf = (ports: readonly number[]): Address[] =>
    ports.map((port, index) => ({
      host: setup.host ?? '127.0.0.1',
      ip: '127.0.0.1',
      port,
      weight: 1,
      priority: setup.isRanked === false ? 0 : index,
    }))
  const addresses = addressesOf(setup.ports ?? [])
  const discovery: Discovery = {
    failure: null,
    start: (onChange) => {
      tell = onChange
      if (!setup.isLate) onChange(addresses)
    },
    refresh: () => {},
    stop: () => {},
  }
  const options: ClusterOptions = {
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
    budget: null,
    probeTimeoutMs: 1000,
    queue: 'Oldest',
  }
  const cluster = new Cluster(options, { discover: () => setup.discovery ?? discovery })
  cluster.start()
  const snapshot: TcpSnapshot = {
    cluster,
    timeouts: { connectMs: 2000, requestMs: null, idleMs: null, ...setup.timeouts },
    rateLimit: setup.rateLimit === undefined ? null : new RateLimit(setup.rateLimit),
    accessLog: { mode: 'All', sample: 0 },
  }
  const records: TcpRecord[] = []
  const wake: (() => void)[] = []
  const driver = new TcpDriver({
    snapshot,
    onLogged: (record) => {
      records.push(record)
      for (const each of wake.splice(0)) each()
    },
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
    snapshot,
    tell: () => tell(addresses),
    /** Tells the discovery's endpoints. */
    found: (ports: readonly number[]) => tell(addressesOf(ports)),
    client: (options: { readonly highWaterMark?: number } = {}) => {
      const client = new TestClient({ port: listener.port, ...options })
      ends.push(() => client.socket.destroy())
      return client
    },
    /** The record of connection number `n` to end. */
    record: async (n = 0): Promise<TcpRecord> => {
      while (records.length <= n) await new Promise<void>((resolve) => wake.push(resolve))
      return records[n]!
    },
  }
}
