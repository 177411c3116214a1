/** The access line of a TCP or Redis connection: one JSON object when it has ended. */
import type { TcpRecord } from '../protocol/tcp/session.ts'

/** The line, with its line break. Durations in milliseconds; never an address of the application, which is always loopback. */
export function tcpAccessLine(
  namespace: string,
  ambassador: string,
  record: TcpRecord & { readonly commands?: number },
): string {
  const { end, detail, upstream, endpoint, attempts, bytesIn, bytesOut, queueMs, connectMs, tlsMs, durationMs } = record
  return `${JSON.stringify({
    level: 'info',
    time: new Date().toISOString(),
    name: 'access',
    ns: namespace,
    ambassador,
    upstream,
    endpoint,
    reason: end,
    ...(detail === null ? {} : { detail }),
    attempts,
    bytesIn,
    bytesOut,
    ...(record.commands === undefined ? {} : { commands: record.commands }),
    queue_ms: round(queueMs),
    connect_ms: round(connectMs),
    tls_ms: round(tlsMs),
    total_ms: round(durationMs),
    msg: 'connection',
  })}\n`
}

/** Microseconds are all that can be told. */
function round(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
