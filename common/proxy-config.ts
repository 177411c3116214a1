/** ProxyConfig: what the operator writes into an Ambassador's ConfigMap and the proxy obeys. Everything is resolved: milliseconds, bytes, no defaults. */
import { z } from 'zod'

export { canonicalJson, configHash, endpointsHash } from './config-hash.ts'

const name = z.string().min(1).max(253)
const port = z.int().min(1).max(65535)
const ms = z.int().min(0)
const count = z.int().min(0)

/**
 * Where the proxy finds a value that is not in the config itself. `secret` and `configMap` are files `<name>/<key>` below the
 * directories that its environment names; `file` and `env` exist only outside Kubernetes (`ambassador run`).
 */
const dataRef = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('secret'), name, key: name }),
  z.object({ kind: z.literal('configMap'), name, key: name }),
  /** A token of the pod's service account for an audience: the file `<name>/token` below a directory of its own. */
  z.object({ kind: z.literal('token'), name, audience: z.string() }),
  z.object({ kind: z.literal('file'), path: z.string().min(1) }),
  z.object({ kind: z.literal('env'), name: z.string().min(1) }),
])
export type DataRef = z.infer<typeof dataRef>

const tlsConfig = z.object({
  /** Name sent as SNI and verified in the certificate; null: the host of the endpoint. */
  serverName: name.nullable(),
  /** PEM bundle that replaces the system roots; null: the system roots. */
  ca: dataRef.nullable(),
  clientCertificate: z.object({ certificate: dataRef, privateKey: dataRef }).nullable(),
  minVersion: z.enum(['TLSv1.2', 'TLSv1.3']),
  /** PostgreSQL only: TLS from the first byte. Absent: after an SSLRequest. */
  negotiation: z.literal('Direct').optional(),
  /** Neither chain nor name is verified, for this reason. Absent: both are. */
  insecureSkipVerify: z.object({ reason: z.string().min(1) }).optional(),
})
export type TlsConfig = z.infer<typeof tlsConfig>

/** Login of each connection to Redis; username null: AUTH with the password alone. */
const redisAuth = () => z.object({ kind: z.literal('redis'), username: z.string().nullable(), password: dataRef })

export const SENTINEL_ROLES = ['Master', 'Replica'] as const

/** Where the endpoints of a cluster come from. */
export const discovery = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('endpoints'),
    /** Host is a name (resolved by DNS, each address an endpoint of the same weight and priority) or an IP address. */
    endpoints: z
      .array(
        z.object({
          host: name,
          port,
          weight: z.int().min(1),
          priority: count,
          /** Where it is; absent: not known. */
          zone: name.optional(),
        }),
      )
      .min(1),
  }),
  /** Every A and AAAA record of the name is an endpoint. */
  z.object({ kind: z.literal('dns'), hostname: name, port }),
  /** SRV records of the name (RFC 2782): targets with ports, priorities and weights. */
  z.object({ kind: z.literal('srv'), name }),
  /** What the Sentinels of a Redis say: its master, or its replicas. Redis only. */
  z.object({
    kind: z.literal('sentinel'),
    masterName: name,
    /** Those to begin with. */
    sentinels: z.array(z.object({ host: name, port })).min(1),
    role: z.enum(SENTINEL_ROLES),
    /** Of the Sentinels themselves. */
    auth: redisAuth().nullable(),
    tls: tlsConfig.nullable(),
  }),
  /**
   * The pods of a Kubernetes Service, which the operator keeps up to date. None: it has none that can be used. They are no part of
   * the config's hash, since nobody changed the Ambassador: see `endpointsHash`.
   */
  z.object({
    kind: z.literal('service'),
    namespace: z.string(),
    name,
    /** As the Ambassador says it: `80` or `http`. */
    port: name,
    /** Of requests, and the name that TLS verifies unless the config says another. */
    host: name,
    endpoints: z.array(
      z.object({
        ip: name,
        port,
        /** Of its node; absent: not known. */
        zone: name.optional(),
        /** Zones that Kubernetes meant it for, whatever its own is; absent: it said nothing. */
        forZones: z.array(name).optional(),
      }),
    ),
  }),
  /** A list that another program writes; see docs/endpoints-file.md. */
  z.object({ kind: z.literal('file'), ref: dataRef }),
  /** A Unix socket, by its path from the root. */
  z.object({ kind: z.literal('unix'), path: z.string().min(2) }),
  /** Whatever host a request names in this field, of those that are allowed; see common/host-list.ts. HTTP only. */
  z.object({ kind: z.literal('fromHeader'), name, allowed: z.array(name).min(1) }),
])
export type DiscoveryConfig = z.infer<typeof discovery>
export type ServiceDiscoveryConfig = Extract<DiscoveryConfig, { kind: 'service' }>
export type SentinelDiscoveryConfig = Extract<DiscoveryConfig, { kind: 'sentinel' }>

/** The credential that the proxy adds to each HTTP request, or that it logs in by. */
const authConfig = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('bearer'), token: dataRef }),
  z.object({ kind: z.literal('basic'), username: dataRef, password: dataRef }),
  z.object({ kind: z.literal('header'), name: z.string(), value: dataRef }),
  redisAuth(),
  /** A bearer token that the kubelet writes and renews. */
  z.object({ kind: z.literal('serviceAccountToken'), token: dataRef }),
  /** A bearer token by the client credentials grant (RFC 6749 section 4.4). */
  z.object({
    kind: z.literal('oauth2ClientCredentials'),
    tokenUrl: z.string(),
    clientId: z.string(),
    clientSecret: dataRef,
    scopes: z.array(z.string()),
    audience: z.string().nullable(),
    /** Of the token URL; null: the system roots. */
    tls: tlsConfig.nullable(),
  }),
  /** Each attempt signed with the keys of AWS that the environment gives. */
  z.object({ kind: z.literal('awsSigV4'), service: z.string(), region: z.string() }),
  /** A bearer token of Google's metadata server, or by the key file that the environment names. */
  z.object({ kind: z.literal('gcpIdToken'), audience: z.string() }),
  /** PostgreSQL only: what the proxy logs in by, whatever user the application names. */
  z.object({
    kind: z.literal('postgres'),
    username: z.string().min(1),
    /** Null: a token is fetched in its place, see `token`. */
    password: dataRef.nullable(),
    token: z
      .discriminatedUnion('kind', [
        z.object({ kind: z.literal('awsRdsIam'), region: z.string().min(1) }),
        z.object({ kind: z.literal('gcpCloudSqlIam') }),
        z.object({ kind: z.literal('azureEntra') }),
      ])
      .optional(),
    /** What the application must prove that it knows; absent: nothing. */
    clientPassword: dataRef.optional(),
  }),
])
export type AuthConfig = z.infer<typeof authConfig>

const breakerConfig = z.object({
  /** Opens after this many failures in a row; null: not counted. */
  consecutiveFailures: z.int().min(1).nullable(),
  /** Opens when at least minimumRequests ended within the window and this share of them failed; null: not counted. */
  failureRate: z.object({ ratio: z.number().min(0).max(1), minimumRequests: z.int().min(1), windowMs: ms }).nullable(),
  /** The same of attempts that took at least durationMs, from the end of the request to the head of the answer. HTTP only. */
  slowCall: z
    .object({ durationMs: ms, ratio: z.number().min(0).max(1), minimumRequests: z.int().min(1), windowMs: ms })
    .optional(),
  openMs: ms,
  /** The open time doubles up to this while probes fail. */
  maxOpenMs: ms,
  halfOpenRequests: z.int().min(1),
})
export type BreakerConfig = z.infer<typeof breakerConfig>

const limitsConfig = z.object({
  maxConnections: z.int().min(1),
  maxPendingRequests: count,
  maxConcurrentRetries: count,
  /** A connection takes no request after this time; null: it may be of any age. Absent: ten minutes. HTTP only. */
  maxConnectionAgeMs: z.int().min(1).nullable().optional(),
  /** Absent: 10,000. HTTP only. */
  maxConnectionRequests: z.int().min(1).optional(),
})
export type LimitsConfig = z.infer<typeof limitsConfig>

export const ZONE_PREFERENCES = ['None', 'SameZone'] as const

export const BALANCING_POLICIES = ['LeastRequest', 'RoundRobin', 'Random', 'ConsistentHash'] as const
export type BalancingPolicy = (typeof BALANCING_POLICIES)[number]

export const PROXY_PROTOCOLS = ['V1', 'V2'] as const
export type ProxyProtocol = (typeof PROXY_PROTOCOLS)[number]

const balancingConfig = z.object({
  policy: z.enum(BALANCING_POLICIES),
  /** With ConsistentHash: what of a request is hashed; header names in lower case. HTTP only. */
  hashOn: z.object({ kind: z.enum(['header', 'cookie', 'query']), name }).optional(),
  /** An endpoint that is new or well again gets its full share only after this time. Absent: at once. */
  slowStartMs: z.int().min(1).optional(),
  /**
   * With fewer well endpoints than this share, 0 to 1, they are all used whatever their health. 0: never, one that is not well gets
   * nothing. Absent: when none is well.
   */
  panicThreshold: z.number().min(0).max(1).optional(),
  /** Endpoints of the zone of the pod go first in each priority. Absent: zones are not looked at. */
  zonePreference: z.literal('SameZone').optional(),
})
export type BalancingConfig = z.infer<typeof balancingConfig>

const healthCheckConfig = z.object({
  probe: z.discriminatedUnion('kind', [
    /** GET over HTTP/1.1; statuses null: 200 to 399. */
    z.object({ kind: z.literal('http'), path: z.string().min(1), statuses: z.array(z.int()).nullable() }),
    z.object({ kind: z.literal('tcp') }),
    z.object({ kind: z.literal('tls') }),
    /** Logs in at a PostgreSQL server and asks for its role. */
    z.object({ kind: z.literal('postgres') }),
    /** Logs in; role null: PING is answered. */
    z.object({ kind: z.literal('redis'), role: z.enum(SENTINEL_ROLES).nullable() }),
  ]),
  /** Null: that of the endpoint. */
  port: port.nullable(),
  /** From the end of a check to the next, give or take a tenth. */
  intervalMs: ms,
  timeoutMs: ms,
  unhealthyThreshold: z.int().min(1),
  healthyThreshold: z.int().min(1),
})
export type HealthCheckConfig = z.infer<typeof healthCheckConfig>

const outlierConfig = z.object({
  consecutiveFailures: z.int().min(1),
  /** Times the number of ejections in a row, up to maxEjectionMs. */
  ejectionMs: ms,
  maxEjectionMs: ms,
  /** Share of the endpoints, 0 to 1; one may always be ejected while another is up. */
  maxEjected: z.number().min(0).max(1),
})
export type OutlierConfig = z.infer<typeof outlierConfig>

export const ROLES = ['Primary', 'Replica', 'Any'] as const
export type RoleConfig = (typeof ROLES)[number]

/** Requests keep to what the upstream says it takes, in 429, Retry-After and RateLimit. HTTP only. */
const pacingConfig = z.object({
  /** A request that would wait longer is refused. */
  maxDelayMs: ms,
})
export type PacingConfig = z.infer<typeof pacingConfig>

/** What is optional here was added later: a config without it, of an older operator, means what it always meant. */
const clusterConfig = z.object({
  name,
  discovery,
  tls: tlsConfig.nullable(),
  auth: authConfig.nullable(),
  circuitBreaker: breakerConfig.nullable(),
  limits: limitsConfig,
  /** How an endpoint is chosen among those of one priority. Default LeastRequest. */
  loadBalancing: balancingConfig.optional(),
  /** Header that goes before the first byte of each connection. Absent: none. */
  proxyProtocol: z.enum(PROXY_PROTOCOLS).optional(),
  /** What still goes on at an endpoint that has left is cut after this time. Absent: never, while the endpoint is there. */
  drainDeadlineMs: z.int().min(1).optional(),
  /** Absent: nothing is checked. */
  healthCheck: healthCheckConfig.optional(),
  /** Absent: nothing is ejected. */
  outlierDetection: outlierConfig.optional(),
  /** PostgreSQL only: what a server must be to be used. Default Any. */
  role: z.enum(ROLES).optional(),
  /** HTTP only. Absent: what the upstream says of its limits is passed on and nothing else. */
  pacing: pacingConfig.optional(),
})
export type ClusterConfig = z.infer<typeof clusterConfig>

export const RETRY_CONDITIONS = ['ConnectFailure', 'Reset', 'Timeout'] as const

export const retryConfig = z.object({
  maxRetries: count,
  /** Failures without an answer that are tried again. */
  on: z.array(z.enum(RETRY_CONDITIONS)),
  /** Answers that are tried again: 429, 503, ... ("5xx" is written out by the operator as 500 to 599 without 501 and 505). */
  statuses: z.array(z.int().min(400).max(599)),
  perTryTimeoutMs: ms.nullable(),
  backoff: z.object({ initialMs: ms, maxMs: ms }),
  budget: z.object({ ratio: z.number().min(0).max(1), minPerSecond: count }),
  maxBufferedBodyBytes: count,
  methods: z.enum(['Idempotent', 'All']),
  /** A request without an answer after this time is sent a second time, within the budget. Absent: it is not. */
  hedgeMs: z.int().min(1).optional(),
})
export type RetryConfig = z.infer<typeof retryConfig>

const timeoutsConfig = z.object({
  connectMs: ms,
  /** From the end of the request to the first byte of the final answer, over all tries and backoffs; null: no limit. HTTP only. */
  requestMs: ms.nullable(),
  /** A body or TCP connection in which no byte moves for this long is ended; null: never. */
  idleMs: ms.nullable(),
})
export type TimeoutsConfig = z.infer<typeof timeoutsConfig>

const rateLimitConfig = z.object({
  requests: z.int().min(1),
  perMs: z.int().min(1),
  burst: z.int().min(1),
  onLimit: z.enum(['Reject', 'Delay']),
  /** With Delay: a request that would wait longer is rejected. */
  maxDelayMs: ms,
  /** Of all sidecars of the Ambassador together: each takes its share by `fleet`. Absent: of each. */
  perFleet: z.literal(true).optional(),
})
export type RateLimitConfig = z.infer<typeof rateLimitConfig>

/** What a value of a request must be: a header field, a query parameter or a cookie. Header names in lower case. */
const valueMatchConfig = z.discriminatedUnion('kind', [
  z.object({ name, kind: z.literal('present'), present: z.boolean() }),
  z.object({ name, kind: z.literal('in'), values: z.array(z.string()).min(1) }),
  z.object({ name, kind: z.literal('prefix'), value: z.string() }),
  /** Must match the whole value. */
  z.object({ name, kind: z.literal('regex'), value: z.string() }),
])
export type ValueMatchConfig = z.infer<typeof valueMatchConfig>

const headerChanges = z.object({
  set: z.array(z.object({ name, value: z.string() })),
  add: z.array(z.object({ name, value: z.string() })),
  remove: z.array(name),
})
export type HeaderChangesConfig = z.infer<typeof headerChanges>

/** Which requests go where. The first route that matches wins; without one a request goes to the first cluster. */
const routeConfig = z.object({
  match: z.object({
    methods: z.array(z.string()).nullable(),
    /** Compared with the path as received, nothing decoded or normalized. A prefix ends at a segment. */
    path: z.object({ kind: z.enum(['exact', 'prefix', 'regex']), value: z.string() }).nullable(),
    headers: z.array(valueMatchConfig),
    query: z.array(valueMatchConfig),
    cookies: z.array(valueMatchConfig),
  }),
  to: z.array(z.object({ cluster: name, weight: count })).min(1),
  /** The value that decides between the clusters of `to`; without one in the request, chance does. */
  stickyOn: z.object({ kind: z.enum(['header', 'cookie']), name }).nullable(),
  /** Replaces the matched path prefix. */
  rewritePrefix: z.string().nullable(),
  requestHeaders: headerChanges,
  responseHeaders: headerChanges,
  /** Override those of the Ambassador; null: those. */
  timeouts: z.object({ requestMs: ms.nullable(), idleMs: ms.nullable() }).nullable(),
  retry: retryConfig.nullable(),
  rateLimit: rateLimitConfig.nullable(),
  /** Copies of this share of the requests go there too, 0 to 1; their answers are thrown away. Absent: none do. */
  mirror: z.object({ cluster: name, ratio: z.number().min(0).max(1) }).optional(),
})
export type RouteConfig = z.infer<typeof routeConfig>

/** Hosts that may be dialled: names, `*.domain`, addresses and ranges, each with or without a port; see common/host-list.ts. */
const egressConfig = z.object({ allow: z.array(z.string().min(1)).min(1) })

const accessLogConfig = z.object({
  mode: z.enum(['All', 'Errors', 'Off']),
  /** With Errors: this share of the exchanges that did not fail is logged too. 0 to 1. */
  sample: z.number().min(0).max(1),
})
export type AccessLogConfig = z.infer<typeof accessLogConfig>

/** Spans of the exchanges. HTTP only. */
const tracingConfig = z.object({
  /** Base URL of a collector that takes OTLP over HTTP with JSON. */
  endpoint: z.string().min(1),
  /** Share of the traces that begin here which are sent, 0 to 1. A trace that the application began is sent when it says so. */
  sample: z.number().min(0).max(1),
  /** An exchange whose answer began later than this is sent in any case, as is one that failed. */
  slowMs: ms,
})
export type TracingConfig = z.infer<typeof tracingConfig>

/** Which statements get a line in the log, and what of them is in it. */
const queryLogConfig = z.object({
  /** Statements that took less have none. */
  minDurationMs: ms,
  /** Literals become `?`. */
  redactLiterals: z.boolean(),
  /** Share of the others that have one, 0 to 1. */
  sample: z.number().min(0).max(1),
})
export type QueryLogConfig = z.infer<typeof queryLogConfig>

/** How connections to the server are shared; see docs/postgresql.md. */
const poolingConfig = z.object({
  mode: z.enum(['Transaction', 'Session']),
  /** The longest wait for a connection to the server. */
  queueTimeoutMs: ms,
  /** A free connection that nobody used for this long is closed; null: never. */
  idleTimeoutMs: ms.nullable(),
  /** A free connection that is older is closed; null: never. */
  maxLifetimeMs: ms.nullable(),
  /** On each connection. */
  maxPreparedStatements: z.int().min(1),
})
export type PoolingConfig = z.infer<typeof poolingConfig>

const postgresConfig = z.object({
  /** Absent: each connection of the application has one of its own. */
  pooling: poolingConfig.optional(),
  /** Absent: no lines. */
  queryLog: queryLogConfig.optional(),
})
export type PostgresConfig = z.infer<typeof postgresConfig>

export const proxyConfig = z.object({
  version: z.literal(1),
  ambassador: z.object({ namespace: z.string(), name, generation: count }),
  /** Content hash of everything else but the generation; see configHash(). */
  hash: z.string(),
  /** Of the endpoints of every Service in it and of `fleet`, which change without a new hash; absent: it has neither. */
  endpointsHash: z.string().optional(),
  /** Sidecars that serve the Ambassador, which the operator keeps up to date; absent: no limit is shared by them. */
  fleet: z.object({ sidecars: z.int().min(1) }).optional(),
  protocol: z.enum(['HTTP', 'TCP', 'Redis', 'PostgreSQL']),
  /** Data ports are on 127.0.0.1 and [::1] alone, whatever the config says. */
  listener: z.object({
    port,
    /** Path of a Unix socket that is listened on too. Absent: none. */
    unix: z.string().min(2).optional(),
  }),
  clusters: z.array(clusterConfig).min(1),
  /** HTTP only. */
  routes: z.array(routeConfig),
  /** HTTP only; null for TCP. */
  retry: retryConfig.nullable(),
  timeouts: timeoutsConfig,
  /** Requests (HTTP) or connections (TCP). */
  rateLimit: rateLimitConfig.nullable(),
  accessLog: accessLogConfig,
  /** Absent: whatever discovery finds. */
  egress: egressConfig.optional(),
  /** Absent: no spans, and trace context is passed on untouched. */
  tracing: tracingConfig.optional(),
  /** PostgreSQL only. */
  postgres: postgresConfig.optional(),
})
export type ProxyConfig = z.infer<typeof proxyConfig>

/**
 * Reads a config that somebody wrote. Unknown keys are allowed (an older proxy, a newer operator).
 * @throws {Error} whose message names the field, the value and what is expected
 */
export function parseProxyConfig(value: unknown): ProxyConfig {
  const result = proxyConfig.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  throw new Error(`config: ${issue?.path.join('.') || 'document'}: ${issue?.message ?? 'is not valid'}`)
}
