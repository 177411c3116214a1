/** The line of the query log: one JSON object for a statement that has ended. */
import type { QueryRecord } from '../protocol/postgres/query-log.ts'

/** The line, with its line break. Durations in milliseconds; no values of the application's, see QueryRecord. */
export function queryLine(namespace: string, ambassador: string, record: QueryRecord): string {
  const { database, protocol, statement, fingerprint, durationMs, rows, code } = record
  return `${JSON.stringify({
    level: 'info',
    time: new Date().toISOString(),
    name: 'query',
    ns: namespace,
    ambassador,
    database,
    protocol,
    statement,
    fingerprint,
    durationMs: Math.round(durationMs * 1000) / 1000,
    ...(rows === null ? {} : { rows }),
    ...(code === null ? {} : { code }),
    msg: 'statement',
  })}\n`
}
