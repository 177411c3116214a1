/** Every metric of the proxy, written from plain numbers when somebody scrapes; nothing is kept for it in between. */
import { PRODUCT_VERSION } from '../../common/names.ts'
import { now } from '../runtime/clock.ts'
import { overloadCause } from '../runtime/overload.ts'
import type { Served } from '../served.ts'
import { exhaustedDials } from '../upstream/connector.ts'
import type { Endpoint } from '../upstream/endpoint.ts'
import { DURATION_BUCKETS_MS, type DurationExemplar, type HttpCells } from './cells.ts'
import { Exposition, type ExpositionFormat, type Labels } from './exposition.ts'
import { writePostgres } from './postgres-metrics.ts'

const CIRCUIT = { closed: 0, 'half-open': 1, open: 2 } as const

export interface ProcessNumbers {
  /** The longest delay of the event loop since the last scrape. */
  readonly eventLoopDelayMs: number
  /** Configs that were put in force, and that were not, since the start. */
  readonly loads: { readonly applied: number; readonly rejected: number }
  /** Reloads of TLS files that left the last good ones in use. */
  readonly tlsReloadFailures: number
}

/** The text of /metrics. */
export function metricsText(served: readonly Served[], process: ProcessNumbers, format?: ExpositionFormat): string {
  const out = new Exposition(format)
  writeHttp(out, served)
  writeTcp(out, served)
  writeRedis(out, served)
  writePostgres(out, served)
  writeSpans(out, served)
  writeUpstreams(out, served)
  writeTrouble(out, served)
  writeConfig(out, served, process)
  writeProcess(out, process)
  return out.text()
}

/** Every cluster with the labels that tell it apart. */
function clusters(served: readonly Served[]) {
  return served.flatMap((each) =>
    each.compiled.map((compiled) => ({
      ...compiled,
      labels: { ambassador: each.name, upstream: compiled.cluster.name },
    })),
  )
}

const BOUNDS_SECONDS = DURATION_BUCKETS_MS.map((ms) => ms / 1000)

/** The same histogram under the name that the pattern's first write-up gave it. */
const DURATION_NAMES = ['ambassador_request_duration_seconds', 'ambassador_request_duration'] as const

function exemplarOf(example: DurationExemplar | null) {
  if (example === null) return null
  return { traceId: example.traceId, value: example.durationMs / 1000, at: example.atMs / 1000 }
}

function writeHttp(out: Exposition, served: readonly Served[]): void {
  const http = served.filter(({ config }) => config?.protocol === 'HTTP')
  const all = clusters(http)
  if (all.length === 0) return
  const series = all.flatMap(({ cells, labels }) =>
    cells.statuses.map(([status, cell]) => ({ cell, labels: { ...labels, status } })),
  )
  for (const name of DURATION_NAMES) {
    out.metric(
      name,
      'histogram',
      'Seconds from a request to the end of its answer; status 0 is a client that left before.',
    )
    for (const { cell, labels } of series) {
      const exemplars = cell.exemplars?.map(exemplarOf) ?? null
      out.histogram(name, labels, BOUNDS_SECONDS, { counts: cell.buckets, sum: cell.sumMs / 1000, exemplars })
    }
  }
  out.metric(
    'ambassador_requests_total',
    'counter',
    'Requests of the application that ended, by the status that it got.',
  )
  for (const { cell, labels } of series) out.sample('ambassador_requests_total', labels, cell.count)
  out.metric(
    'ambassador_request_failures_total',
    'counter',
    'Requests that the sidecar itself answered or that failed, by reason code.',
  )
  for (const { cells, labels } of all) {
    for (const [reason, count] of Object.entries(cells.reasons)) {
      if (count > 0) out.sample('ambassador_request_failures_total', { ...labels, reason }, count)
    }
  }
  out.metric(
    'ambassador_retries_total',
    'counter',
    'Retries by outcome: success and exhausted (failed) were sent; limit_exceeded had no try left; overflow had no budget left.',
  )
  for (const { cluster, labels } of all) {
    const { successes, requests, active, limitExceeded, overflow } = cluster.budget
    out.sample('ambassador_retries_total', { ...labels, outcome: 'success' }, successes)
    out.sample(
      'ambassador_retries_total',
      { ...labels, outcome: 'exhausted' },
      Math.max(0, requests - successes - active),
    )
    out.sample('ambassador_retries_total', { ...labels, outcome: 'limit_exceeded' }, limitExceeded)
    out.sample('ambassador_retries_total', { ...labels, outcome: 'overflow' }, overflow)
  }
  for (const [name, help, value] of HTTP_COUNTERS) {
    out.metric(name, 'counter', help)
    for (const { cells, labels } of all) out.sample(name, labels, value(cells))
  }
  out.metric(
    'ambassador_hedges_total',
    'counter',
    'Second attempts of requests whose first was slow, by whether theirs was the answer that counted: won or lost.',
  )
  for (const { cells, labels } of all) {
    const { sent, won } = cells.hedged
    if (sent === 0) continue
    out.sample('ambassador_hedges_total', { ...labels, outcome: 'won' }, won)
    out.sample('ambassador_hedges_total', { ...labels, outcome: 'lost' }, sent - won)
  }
  out.metric(
    'ambassador_mirrored_total',
    'counter',
    'Copies of requests for an upstream: sent (answered), failed, dropped (something was scarce), too_large (the body was not kept).',
  )
  for (const { cells, labels } of all) {
    const { sent, failed, dropped, tooLarge } = cells.mirrored
    if (sent + failed + dropped + tooLarge === 0) continue
    for (const [outcome, count] of Object.entries({ sent, failed, dropped, too_large: tooLarge })) {
      out.sample('ambassador_mirrored_total', { ...labels, outcome }, count)
    }
  }
  for (const name of ['ambassador_requests_active', 'ambassador_inflight']) {
    out.metric(name, 'gauge', 'Requests under way.')
    for (const { cells, labels } of all) out.sample(name, labels, cells.active)
  }
  out.metric(
    'ambassador_queue_wait_seconds',
    'histogram',
    'Seconds that requests waited for the rate limit, for DNS or for a connection; those that did not wait are not in it.',
  )
  for (const { cells, labels } of all) {
    const { buckets, sumMs } = cells.queueWait
    out.histogram('ambassador_queue_wait_seconds', labels, BOUNDS_SECONDS, { counts: buckets, sum: sumMs / 1000 })
  }
}

const HTTP_COUNTERS: readonly (readonly [string, string, (cells: HttpCells) => number])[] = [
  ['ambassador_attempts_total', 'Requests sent to an endpoint, first ones and retries.', (cells) => cells.attempts],
  ['ambassador_replays_total', 'Requests sent again because a reused connection had died.', (cells) => cells.replays],
  ['ambassador_request_bytes_total', 'Content bytes of requests, and into tunnels.', ({ bytes }) => bytes.request],
  ['ambassador_response_bytes_total', 'Content bytes of answers, and out of tunnels.', ({ bytes }) => bytes.response],
  ['ambassador_upgrades_total', 'Connections that became tunnels.', (cells) => cells.upgrades],
]

function writeSpans(out: Exposition, served: readonly Served[]): void {
  out.metric('ambassador_spans_total', 'counter', 'Spans that the collector took (exported) or never got (dropped).')
  for (const { name, config, driver } of served) {
    if (config?.tracing === undefined || driver?.spans === undefined) continue
    out.sample('ambassador_spans_total', { ambassador: name, result: 'exported' }, driver.spans.exported)
    out.sample('ambassador_spans_total', { ambassador: name, result: 'dropped' }, driver.spans.dropped)
  }
}

function writeRedis(out: Exposition, served: readonly Served[]): void {
  const all = served.flatMap((each) => {
    const counts = each.driver?.counts
    return counts?.protocol === 'Redis' ? [{ labels: { ambassador: each.name }, redis: counts.redis }] : []
  })
  if (all.length === 0) return
  out.metric(
    'ambassador_redis_commands_total',
    'counter',
    'Commands of the application; of more than 63 names the rest is other.',
  )
  for (const { labels, redis } of all) {
    for (const { command, count } of redis.cells.commands) {
      if (count > 0) out.sample('ambassador_redis_commands_total', { ...labels, command }, count)
    }
  }
  out.metric(
    'ambassador_redis_command_duration_seconds',
    'histogram',
    'Seconds from a command to the end of its reply.',
  )
  for (const { labels, redis } of all) {
    for (const { command, durations } of redis.cells.commands) {
      if (durations.count === 0) continue
      const cells = { counts: durations.buckets, sum: durations.sumMs / 1000 }
      out.histogram('ambassador_redis_command_duration_seconds', { ...labels, command }, BOUNDS_SECONDS, cells)
    }
  }
  out.metric(
    'ambassador_redis_connections_total',
    'counter',
    'Connections of the application that ended, by how: a reason code, client_closed, upstream_closed, idle_timeout or endpoint_left.',
  )
  for (const { labels, redis } of all) {
    for (const [end, count] of Object.entries(redis.totals.ends)) {
      out.sample('ambassador_redis_connections_total', { ...labels, end }, count)
    }
  }
  out.metric('ambassador_redis_bytes_total', 'counter', 'Bytes from the application (in) and to it (out).')
  for (const { labels, redis } of all) {
    const { bytesIn, bytesOut } = redis.totals
    out.sample('ambassador_redis_bytes_total', { ...labels, direction: 'in' }, bytesIn)
    out.sample('ambassador_redis_bytes_total', { ...labels, direction: 'out' }, bytesOut)
  }
}

function writeTcp(out: Exposition, served: readonly Served[]): void {
  const all = served.flatMap((each) => {
    const counts = each.driver?.counts
    return counts?.protocol === 'TCP' ? [{ labels: { ambassador: each.name }, totals: counts.tcp.totals }] : []
  })
  if (all.length === 0) return
  out.metric(
    'ambassador_tcp_connections_total',
    'counter',
    'Connections of the application that ended, by how: a reason code, client_closed, upstream_closed, idle_timeout or endpoint_left.',
  )
  for (const { labels, totals } of all) {
    for (const [end, count] of Object.entries(totals.ends)) {
      out.sample('ambassador_tcp_connections_total', { ...labels, end }, count)
    }
  }
  out.metric('ambassador_tcp_bytes_total', 'counter', 'Bytes from the application (in) and to it (out).')
  for (const { labels, totals } of all) {
    out.sample('ambassador_tcp_bytes_total', { ...labels, direction: 'in' }, totals.bytesIn)
    out.sample('ambassador_tcp_bytes_total', { ...labels, direction: 'out' }, totals.bytesOut)
  }
  out.metric('ambassador_tcp_redials_total', 'counter', 'Dials that followed a failed one of the same connection.')
  for (const { labels, totals } of all) out.sample('ambassador_tcp_redials_total', labels, totals.redials)
}

/** Endpoints of an upstream that have series of their own: a name may have hundreds of addresses, and others every minute. */
export const MAX_ENDPOINTS = 64

/** A gauge per endpoint; beyond the bound one for all the others, which is that of the worst. Null: it has none. */
export function writeEndpoints(
  out: Exposition,
  name: string,
  labels: Labels,
  endpoints: Iterable<Endpoint>,
  gaugeOf: (endpoint: Endpoint) => number | null,
): void {
  // Two hosts of an upstream may have one address, and a series must not stand twice: the worse counts.
  const values = new Map<string, number>()
  for (const endpoint of endpoints) {
    const value = gaugeOf(endpoint)
    if (value !== null) values.set(endpoint.name, Math.max(value, values.get(endpoint.name) ?? value))
  }
  let written = 0
  let worst: number | null = null
  for (const [endpoint, value] of values) {
    if (written++ < MAX_ENDPOINTS) out.sample(name, { ...labels, endpoint }, value)
    else worst = Math.max(worst ?? value, value)
  }
  if (worst !== null) out.sample(name, { ...labels, endpoint: 'overflow' }, worst)
}

function writeUpstreams(out: Exposition, served: readonly Served[]): void {
  const all = clusters(served)
  out.metric('ambassador_circuit_state', 'gauge', 'Circuit breaker of an endpoint: 0 closed, 1 half-open, 2 open.')
  for (const { cluster, labels } of all) {
    writeEndpoints(out, 'ambassador_circuit_state', labels, cluster.endpoints, ({ breaker }) =>
      breaker === null ? null : CIRCUIT[breaker.state],
    )
  }
  const time = now()
  out.metric(
    'ambassador_endpoint_health',
    'gauge',
    'Endpoint by its checks and attempts: 0 well, 1 ejected, 2 unhealthy.',
  )
  for (const { cluster, labels } of all) {
    const { healthCheck, outlierDetection } = cluster.config
    if (healthCheck === undefined && outlierDetection === undefined) continue
    writeEndpoints(out, 'ambassador_endpoint_health', labels, cluster.endpoints, ({ isHealthy, outlier }) =>
      !isHealthy ? 2 : outlier.isEjected(time) ? 1 : 0,
    )
  }
  out.metric('ambassador_endpoints', 'gauge', 'Endpoints of an upstream, by whether an attempt may go to them.')
  for (const { cluster, labels } of all) {
    let available = 0
    let total = 0
    for (const endpoint of cluster.endpoints) {
      total++
      const { breaker } = endpoint
      if ((breaker === null || breaker.state === 'closed') && endpoint.isWell(time)) available++
    }
    out.sample('ambassador_endpoints', { ...labels, state: 'available' }, available)
    out.sample('ambassador_endpoints', { ...labels, state: 'unavailable' }, total - available)
  }
  const followed = all.filter(({ cluster }) => cluster.isFollowed)
  if (followed.length > 0) {
    out.metric('ambassador_master_switches_total', 'counter', 'Times that another server became the master.')
    for (const { cluster, labels } of followed) {
      out.sample('ambassador_master_switches_total', labels, cluster.switches)
    }
  }
  out.metric(
    'ambassador_connections',
    'gauge',
    'Connections of the application (downstream) and to upstreams (upstream).',
  )
  for (const each of served) {
    const { open, busy } = each.connections
    const labels = { ambassador: each.name, upstream: '', side: 'downstream' }
    out.sample('ambassador_connections', { ...labels, state: 'busy' }, busy)
    out.sample('ambassador_connections', { ...labels, state: 'idle' }, open - busy)
  }
  for (const { cluster, labels } of all) {
    const { used, pending } = cluster.usage
    out.sample('ambassador_connections', { ...labels, side: 'upstream', state: 'open' }, used)
    out.sample('ambassador_connections', { ...labels, side: 'upstream', state: 'waiting' }, pending)
  }
  out.metric('ambassador_queue_full_total', 'counter', 'Requests or connections refused because too many waited.')
  for (const { cluster, labels } of all) out.sample('ambassador_queue_full_total', labels, cluster.usage.overflow)
  out.metric(
    'ambassador_egress_denied_total',
    'counter',
    'Addresses that discovery found and attempts without another one that were not dialled: egress.allow, or the own port.',
  )
  for (const { cluster, labels } of all) out.sample('ambassador_egress_denied_total', labels, cluster.denials)
  out.metric('ambassador_rate_limited_total', 'counter', 'Requests or connections that the rate limit refused.')
  for (const { name, rateLimits } of served) {
    if (rateLimits.length === 0) continue
    const limited = rateLimits.reduce((sum, each) => sum + each.limited, 0)
    out.sample('ambassador_rate_limited_total', { ambassador: name }, limited)
  }
  out.metric('ambassador_rate_delayed_total', 'counter', 'Requests or connections that the rate limit delayed.')
  for (const { name, rateLimits } of served) {
    if (rateLimits.length === 0) continue
    const delayed = rateLimits.reduce((sum, each) => sum + each.delayed, 0)
    out.sample('ambassador_rate_delayed_total', { ambassador: name }, delayed)
  }
  out.metric('ambassador_fleet_sidecars', 'gauge', 'Sidecars among which a rate limit with perFleet is shared.')
  for (const { name, sidecars } of served) {
    if (sidecars !== null) out.sample('ambassador_fleet_sidecars', { ambassador: name }, sidecars)
  }
  out.metric(
    'ambassador_paced_total',
    'counter',
    'Requests that were delayed or refused because their upstream said that it takes no more; only with pacing.',
  )
  for (const { cluster, labels } of all) {
    if (cluster.config.pacing === undefined) continue
    out.sample('ambassador_paced_total', { ...labels, outcome: 'delayed' }, cluster.paced.delayed)
    out.sample('ambassador_paced_total', { ...labels, outcome: 'refused' }, cluster.paced.refused)
  }
  out.metric(
    'ambassador_token_expiry_seconds',
    'gauge',
    'When the token that requests carry or connections log in by expires, in seconds since 1970.',
  )
  for (const { credential, login, labels } of all) {
    const at = credential?.expiresAt ?? login?.expiresAt ?? null
    if (at !== null) out.sample('ambassador_token_expiry_seconds', labels, at / 1000)
  }
  out.metric(
    'ambassador_tls_certificate_expiry_seconds',
    'gauge',
    'When a certificate that is in use expires, in seconds since 1970.',
  )
  for (const { tls, labels } of all) {
    if (tls === null) continue
    for (const [kind, at] of [
      ['client', tls.expiry.clientCertificate],
      ['ca', tls.expiry.ca],
    ] as const) {
      if (at !== null)
        out.sample('ambassador_tls_certificate_expiry_seconds', { ...labels, certificate: kind }, at / 1000)
    }
  }
}

function writeTrouble(out: Exposition, served: readonly Served[]): void {
  const all = clusters(served)
  out.metric(
    'ambassador_discovery_failing',
    'gauge',
    '1 while endpoints cannot be looked up or read; those that are known stay in use.',
  )
  for (const { cluster, labels } of all) {
    out.sample('ambassador_discovery_failing', labels, cluster.discoveryFailure === null ? 0 : 1)
  }
  out.metric(
    'ambassador_dns_age_seconds',
    'gauge',
    'Seconds since DNS last confirmed the names of an upstream, the oldest of them.',
  )
  const time = now()
  for (const { cluster, labels } of all) {
    const at = cluster.lookedUpAt
    if (at !== null) out.sample('ambassador_dns_age_seconds', labels, Math.max(0, time - at) / 1000)
  }
  const secured = all.filter(({ tls }) => tls !== null)
  if (secured.length === 0) return
  out.metric('ambassador_tls_unverified', 'gauge', '1 for an upstream whose certificate nobody verifies.')
  for (const { tls, labels } of secured) out.sample('ambassador_tls_unverified', labels, tls?.isUnverified ? 1 : 0)
  out.metric('ambassador_tls_reload_failing', 'gauge', '1 while the newest TLS files of an upstream are not usable.')
  for (const { tls, labels } of secured) {
    out.sample('ambassador_tls_reload_failing', labels, tls?.failure == null ? 0 : 1)
  }
}

function writeConfig(out: Exposition, served: readonly Served[], process: ProcessNumbers): void {
  out.metric('ambassador_config_info', 'gauge', 'The config in force; always 1.')
  for (const { name, config } of served) {
    if (config === null) continue
    const labels: Labels = { ambassador: name, hash: config.hash, generation: config.ambassador.generation }
    out.sample('ambassador_config_info', labels, 1)
  }
  out.metric('ambassador_config_rejected', 'gauge', '1 while the newest config of an Ambassador is not in force.')
  for (const each of served) {
    const isRejected = each.report().rejected !== null
    out.sample('ambassador_config_rejected', { ambassador: each.name }, isRejected ? 1 : 0)
  }
  out.metric('ambassador_config_loads_total', 'counter', 'New configs, by whether they were put in force.')
  for (const result of ['applied', 'rejected'] as const) {
    out.sample('ambassador_config_loads_total', { result }, process.loads[result])
  }
  out.single(
    'ambassador_tls_reload_failures_total',
    'counter',
    'Reloads of TLS files that left the last good ones in use.',
    process.tlsReloadFailures,
  )
}

function writeProcess(out: Exposition, numbers: ProcessNumbers): void {
  out.single(
    'ambassador_eventloop_delay_seconds',
    'gauge',
    'The longest delay of the event loop since the last scrape.',
    numbers.eventLoopDelayMs / 1000,
  )
  out.metric('ambassador_overloaded', 'gauge', '1 while new requests are refused because of the cause.')
  for (const cause of ['memory', 'event_loop'] as const) {
    out.sample('ambassador_overloaded', { cause }, overloadCause() === cause ? 1 : 0)
  }
  out.single(
    'ambassador_exhausted_dials_total',
    'counter',
    'Connections that were not made because this side has no open file or memory of the kernel left for them.',
    exhaustedDials(),
  )
  const { user, system } = process.cpuUsage()
  out.single('process_cpu_seconds_total', 'counter', 'User and system CPU time.', (user + system) / 1e6)
  out.single('process_resident_memory_bytes', 'gauge', 'Resident memory.', process.memoryUsage.rss())
  out.single(
    'process_start_time_seconds',
    'gauge',
    'Start of the process in seconds since 1970.',
    Math.round(performance.timeOrigin) / 1000,
  )
  out.metric('ambassador_build_info', 'gauge', 'Version of the sidecar; always 1.')
  out.sample('ambassador_build_info', { version: PRODUCT_VERSION }, 1)
}
