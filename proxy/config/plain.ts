/** The config of a plain container: one upstream, everything else as the Ambassador resource has it by default. */
import { configHash } from '../../common/config-hash.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'

export interface PlainOptions {
  readonly namespace: string
  readonly host: string
  readonly port: number
  readonly listenPort: number
  readonly protocol: 'HTTP' | 'TCP'
  /** HTTP only. Default 2. */
  readonly maxRetries?: number | undefined
  /** Default: no circuit breaker. */
  readonly breakerThreshold?: number | undefined
  /** Null: plain text. `caFile` null: the system roots. */
  readonly tls: { readonly caFile: string | null } | null
}

/** Every status from 500 to 599 but those that another try cannot change: 501 Not Implemented, 505 HTTP Version Not Supported. */
const SERVER_ERRORS = Array.from({ length: 100 }, (_, i) => 500 + i).filter(
  (status) => status !== 501 && status !== 505,
)

/**
 * The proxy does not import the operator, so the defaults of the resource stand here once more; a test renders the same
 * Ambassador and compares.
 */
export function plainConfig(options: PlainOptions): ProxyConfig {
  const isHttp = options.protocol === 'HTTP'
  const config: Omit<ProxyConfig, 'hash'> = {
    version: 1,
    ambassador: { namespace: options.namespace, name: 'default', generation: 0 },
    protocol: options.protocol,
    listener: { port: options.listenPort },
    clusters: [
      {
        name: 'upstream',
        discovery: {
          kind: 'endpoints',
          endpoints: [{ host: options.host, port: options.port, weight: 1, priority: 0 }],
        },
        tls: options.tls && {
          serverName: null,
          ca: options.tls.caFile === null ? null : { kind: 'file', path: options.tls.caFile },
          clientCertificate: null,
          minVersion: 'TLSv1.2',
        },
        auth: null,
        circuitBreaker:
          options.breakerThreshold === undefined
            ? null
            : {
                consecutiveFailures: options.breakerThreshold,
                failureRate: null,
                openMs: 30_000,
                maxOpenMs: 300_000,
                halfOpenRequests: 1,
              },
        limits: { maxConnections: 1024, maxPendingRequests: 1024, maxConcurrentRetries: 64 },
      },
    ],
    routes: [],
    retry: isHttp
      ? {
          maxRetries: options.maxRetries ?? 2,
          on: ['ConnectFailure', 'Reset'],
          statuses: SERVER_ERRORS,
          perTryTimeoutMs: null,
          backoff: { initialMs: 25, maxMs: 1000 },
          budget: { ratio: 0.2, minPerSecond: 10 },
          maxBufferedBodyBytes: 64 * 1024,
          methods: 'Idempotent',
        }
      : null,
    timeouts: { connectMs: 5000, requestMs: isHttp ? 15_000 : null, idleMs: isHttp ? 60_000 : null },
    rateLimit: null,
    accessLog: { mode: 'Errors', sample: 0 },
  }
  return { ...config, hash: configHash(config) }
}
