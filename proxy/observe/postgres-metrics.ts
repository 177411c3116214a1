/** What /metrics says of connections to PostgreSQL that are shared. */
import type { PoolNumbers } from '../protocol/postgres/pooling.ts'
import type { Served } from '../served.ts'
import { DURATION_BUCKETS_MS } from './cells.ts'
import type { Exposition, Labels } from './exposition.ts'

const BOUNDS_SECONDS = DURATION_BUCKETS_MS.map((ms) => ms / 1000)

export function writePostgres(out: Exposition, served: readonly Served[]): void {
  const all = served.flatMap(({ name, config, driver }): { labels: Labels; numbers: PoolNumbers }[] => {
    const counts = driver?.counts
    if (config?.postgres?.pooling === undefined || counts?.protocol !== 'TCP' || !counts.pooling) return []
    return [{ labels: { ambassador: name }, numbers: counts.pooling.numbers }]
  })
  if (all.length === 0) return
  out.metric(
    'ambassador_postgres_server_connections',
    'gauge',
    'Connections to the server that clients share, by whether one uses it.',
  )
  for (const { labels, numbers } of all) {
    const { connections, free } = numbers
    out.sample('ambassador_postgres_server_connections', { ...labels, state: 'idle' }, free)
    out.sample('ambassador_postgres_server_connections', { ...labels, state: 'busy' }, connections - free)
  }
  out.metric(
    'ambassador_postgres_pinned_total',
    'counter',
    'Clients that kept their connection to the server beyond a transaction, by what they did.',
  )
  for (const { labels, numbers } of all) {
    for (const [reason, count] of Object.entries(numbers.pinned)) {
      out.sample('ambassador_postgres_pinned_total', { ...labels, reason }, count)
    }
  }
  out.metric(
    'ambassador_postgres_assignments_total',
    'counter',
    'Times that a client was given a connection to the server: for a transaction, or for longer.',
  )
  for (const { labels, numbers } of all) out.sample('ambassador_postgres_assignments_total', labels, numbers.uses)
  out.metric(
    'ambassador_postgres_queue_wait_seconds',
    'histogram',
    'Seconds that clients waited for a connection to the server; those that did not wait are not in it.',
  )
  for (const { labels, numbers } of all) {
    const { buckets, sumMs } = numbers.waits
    out.histogram('ambassador_postgres_queue_wait_seconds', labels, BOUNDS_SECONDS, {
      counts: buckets,
      sum: sumMs / 1000,
    })
  }
}
