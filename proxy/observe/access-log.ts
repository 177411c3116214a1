/** The access line of an exchange: one JSON object. */
import type { HttpRecord } from '../protocol/http1/record.ts'

/** The line, with its line break. Durations in milliseconds, to the microsecond. */
export function httpAccessLine(namespace: string, ambassador: string, record: HttpRecord, time = new Date()): string {
  const { reason, detail } = record
  return `${JSON.stringify({
    level: reason === null ? 'info' : 'warn',
    time: time.toISOString(),
    name: 'access',
    ns: namespace,
    ambassador,
    requestId: record.requestId,
    ...(record.traceId === null ? {} : { traceId: record.traceId }),
    method: record.method,
    path: record.path,
    status: record.status,
    ...(reason === null ? {} : { reason }),
    ...(detail === null ? {} : { detail }),
    upstream: record.upstream,
    ...(record.route === null ? {} : { route: record.route }),
    endpoint: record.endpoint,
    attempts: record.attempts,
    requestBytes: record.requestBytes,
    responseBytes: record.responseBytes,
    queue_ms: round(record.queueMs),
    connect_ms: round(record.connectMs),
    tls_ms: round(record.tlsMs),
    ttfb_ms: record.ttfbMs === null ? null : round(record.ttfbMs),
    total_ms: round(record.totalMs),
    msg: 'request',
  })}\n`
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
