/** From the protocol of a config to the driver that speaks it. */
import type { Log } from '../common/log.ts'
import { guardedLookup } from './auth/guarded-lookup.ts'
import type { CompiledCluster, Snapshot } from './config/compile.ts'
import { httpAccessLine } from './observe/access-log.ts'
import { queryLine } from './observe/query-line.ts'
import { tcpAccessLine } from './observe/tcp-access-log.ts'
import { HttpDriver } from './protocol/http1/driver.ts'
import { type HttpSnapshot, type HttpUpstream, httpRouter, httpUpstream, retryPlan } from './protocol/http1/snapshot.ts'
import { spanOf } from './protocol/http1/span.ts'
import { PostgresDriver } from './protocol/postgres/driver.ts'
import type { PostgresSnapshot } from './protocol/postgres/snapshot.ts'
import { RedisDriver } from './protocol/redis/driver.ts'
import type { RedisSnapshot } from './protocol/redis/snapshot.ts'
import { TcpDriver } from './protocol/tcp/driver.ts'
import type { TcpSnapshot } from './protocol/tcp/snapshot.ts'
import type { MakeDriver, OnTrouble, SnapshotDriver } from './served.ts'
import { SpanSender } from './tracing/sender.ts'

/** Takes one line of the access log, with its line break. */
export type WriteLine = (line: string) => void

/** What drivers are told of the process. */
export interface DriverParts {
  /** Whose spans they are. */
  readonly pod: string | null
  /** Told when they cannot be sent. */
  readonly log: Log
  /** Most connections of the application to one port of HTTP; null: see defaultMaxClients(). */
  readonly maxClients: number | null
}

/** What makes the driver for a snapshot; it takes later ones of the same protocol by update(). Access lines go to `write`. */
export function driverMaker(write: WriteLine, given: Partial<DriverParts> = {}): MakeDriver {
  const parts: DriverParts = { pod: null, log: silent, maxClients: null, ...given }
  return (snapshot, onTrouble) => {
    switch (snapshot.config.protocol) {
      case 'HTTP':
        return httpDriver(snapshot, onTrouble, write, parts)
      case 'TCP':
        return tcpDriver(snapshot, onTrouble, write)
      case 'Redis':
        return redisDriver(snapshot, onTrouble, write)
      case 'PostgreSQL':
        return postgresDriver(snapshot, onTrouble, write, parts.log)
    }
  }
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }

/** One that says and does what the optional parts of the contract are about. */
type WholeDriver = SnapshotDriver & Required<Pick<SnapshotDriver, 'growing' | 'endSome'>>

function httpDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine, parts: DriverParts): WholeDriver {
  const { namespace, name } = snapshot.config.ambassador
  let guard = first(snapshot).cluster.guard
  const spans = new SpanSender(namespace, name, {
    ...parts,
    lookup: (host, port) => guardedLookup(guard, host, port),
  })
  spans.update(snapshot.config.tracing)
  const http = new HttpDriver({
    snapshot: httpSnapshot(snapshot),
    ...(parts.maxClients !== null && { maxClients: parts.maxClients }),
    onTrouble,
    onLogged: (record) => write(httpAccessLine(namespace, name, record)),
    onTraced: (exchange) => {
      if (exchange.trace !== null) spans.add(spanOf(exchange, exchange.trace, name))
    },
  })
  let { clusters } = snapshot
  return {
    spans,
    counts: { protocol: 'HTTP', http },
    update: (newer) => {
      clusters = newer.clusters
      guard = first(newer).cluster.guard
      spans.update(newer.config.tracing)
      http.update(httpSnapshot(newer))
    },
    serve: (socket) => http.serve(socket),
    drain: () => http.drain(),
    destroy: () => http.destroy(),
    get open() {
      return http.open
    },
    get busy() {
      return http.busy
    },
    get growing() {
      return http.growing
    },
    endSome: (count, detail) => http.endSome(count, detail),
    get answers() {
      const answers: Record<string, number> = {}
      for (const { cells } of clusters) {
        for (const [status, cell] of cells.statuses) answers[status] = (answers[status] ?? 0) + cell.count
      }
      return answers
    },
  }
}

/** TCP, whose driver knows one cluster and no config. */
function tcpDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const tcp = new TcpDriver({
    snapshot: tcpSnapshot(snapshot),
    onTrouble,
    onLogged: (record) => write(tcpAccessLine(namespace, name, record)),
  })
  return {
    counts: { protocol: 'TCP', tcp },
    update: (newer) => tcp.update(tcpSnapshot(newer)),
    serve: (socket) => tcp.serve(socket),
    drain: () => tcp.drain(),
    destroy: () => tcp.destroy(),
    get open() {
      return tcp.open
    },
    get busy() {
      return tcp.busy
    },
    get answers() {
      return tcp.totals.ends as Record<string, number>
    },
  }
}

function redisDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const redis = new RedisDriver({
    snapshot: redisSnapshot(snapshot),
    onTrouble,
    onLogged: (record) => write(tcpAccessLine(namespace, name, record)),
  })
  return {
    counts: { protocol: 'Redis', redis },
    update: (newer) => redis.update(redisSnapshot(newer)),
    serve: (socket) => redis.serve(socket),
    drain: () => redis.drain(),
    destroy: () => redis.destroy(),
    get open() {
      return redis.open
    },
    get busy() {
      return redis.busy
    },
    get answers() {
      return redis.totals.ends as Record<string, number>
    },
  }
}

function postgresDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine, log: Log): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const postgres = new PostgresDriver({
    snapshot: postgresSnapshot(snapshot),
    onQuery: (record) => write(queryLine(namespace, name, record)),
    onTrouble,
    onPinned: (reason, detail, statement) => {
      const fields = { ns: namespace, ambassador: name, reason, detail, ...(statement !== null && { statement }) }
      log.info(fields, 'a client keeps its connection to the server')
    },
    onUnreadable: (detail) => {
      const text = 'the server does not tell what its stored functions do: what they leave in a session is not undone'
      log.warn({ ns: namespace, ambassador: name, detail }, text)
    },
    onLogged: (record) => write(tcpAccessLine(namespace, name, record)),
  })
  return {
    counts: { protocol: 'TCP', tcp: postgres, pooling: postgres.pooled },
    update: (newer) => postgres.update(postgresSnapshot(newer)),
    serve: (socket) => postgres.serve(socket),
    drain: () => postgres.drain(),
    destroy: () => postgres.destroy(),
    get open() {
      return postgres.open
    },
    get busy() {
      return postgres.busy
    },
    get answers() {
      return postgres.totals.ends as Record<string, number>
    },
  }
}

function postgresSnapshot(snapshot: Snapshot): PostgresSnapshot {
  const { login } = first(snapshot)
  if (login === null) throw new Error('a config of PostgreSQL has a login')
  const { pooling = null, queryLog = null } = snapshot.config.postgres ?? {}
  return { ...tcpSnapshot(snapshot), login, pooling, queryLog }
}

function httpSnapshot(snapshot: Snapshot): HttpSnapshot {
  const { config, rateLimit, routeLimits } = snapshot
  const upstreams = snapshot.clusters.map(({ cluster, credential, cells }) => httpUpstream(cluster, credential, cells))
  const upstreamOf = (name: string): HttpUpstream => {
    const found = upstreams.find(({ cluster }) => cluster.name === name)
    if (found === undefined) throw new Error(`cluster '${name}' does not exist`)
    return found
  }
  const base = {
    upstream: upstreamOf(first(snapshot).cluster.name),
    retry: retryPlan(config.retry),
    timeouts: config.timeouts,
    rateLimit,
  }
  const router = httpRouter(config.routes, base, upstreamOf, (index) => routeLimits[index] ?? null)
  return { ...base, route: null, router, accessLog: config.accessLog, tracing: config.tracing ?? null }
}

function tcpSnapshot(snapshot: Snapshot): TcpSnapshot {
  const { config, rateLimit } = snapshot
  return { cluster: first(snapshot).cluster, timeouts: config.timeouts, rateLimit, accessLog: config.accessLog }
}

function redisSnapshot(snapshot: Snapshot): RedisSnapshot {
  const { config, rateLimit } = snapshot
  const { cluster, credential } = first(snapshot)
  return { cluster, credential, timeouts: config.timeouts, rateLimit, accessLog: config.accessLog }
}

/** What no route takes goes to the first upstream; the schema demands one. */
function first({ clusters: [cluster] }: Snapshot): CompiledCluster {
  if (cluster === undefined) throw new Error('a config has at least one cluster')
  return cluster
}
