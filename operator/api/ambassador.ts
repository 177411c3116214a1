/** Ambassador v1alpha1: the resource that a person writes, from which types, CRD, reference and checks are made. */
import { z } from 'zod'
import { ADMIN_PORT, GROUP, KIND, TELEMETRY_PORT, VERSION } from '../../common/names.ts'
import { doc, listMap, listSet, optional, port, type RuleOptions, rule, rules } from '../../common/schema-kit.ts'
import { egress } from './egress.ts'
import { accessLog, rateLimit, retry, timeouts, tracing } from './policies.ts'
import { postgres } from './postgres.ts'
import { routeRules, routes } from './routes.ts'
import { ambassadorStatus } from './status.ts'
import { listenUnix, listenUnixRules } from './unix.ts'
import { upstream } from './upstream.ts'

const listenPort = rule(port(), {
  cel: `self != ${TELEMETRY_PORT} && self != ${ADMIN_PORT}`,
  holds: (value) => value !== TELEMETRY_PORT && value !== ADMIN_PORT,
  message: `ports ${TELEMETRY_PORT} and ${ADMIN_PORT} belong to the sidecar itself (telemetry and administration): use another port`,
})

const HOSTNAME_PATTERN = '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$'
const HOSTNAME_REMEDY = 'use lower-case letters, digits, dashes and dots, such as redis or db.example.com'

const hostname = rule(
  rule(z.string().max(253), {
    cel: `self.matches('${HOSTNAME_PATTERN}') && !self.matches('(^|[.])[0-9]+$')`,
    holds: (text) => new RegExp(HOSTNAME_PATTERN).test(text) && !/(^|[.])[0-9]+$/.test(text),
    message: `not a host name: ${HOSTNAME_REMEDY}`,
    says: {
      cel: `"'" + self + "' is not a host name: ${HOSTNAME_REMEDY}"`,
      text: (text) => `'${text}' is not a host name: ${HOSTNAME_REMEDY}`,
    },
  }),
  {
    cel: `self != 'localhost' && !self.endsWith('.localhost')`,
    holds: (text) => text !== 'localhost' && !text.endsWith('.localhost'),
    message: 'localhost means the pod already: remove it',
  },
)

const listen = z.object({
  port: doc(
    listenPort,
    'Port on 127.0.0.1 and [::1] of the pod, never on another address. Ports below 1024 work where containers may bind them (`net.ipv4.ip_unprivileged_port_start` is 0 in pods of containerd and CRI-O).',
  ),
  hostnames: optional(
    listSet(hostname, 16),
    'Names that mean this Ambassador inside the pod: `/etc/hosts` maps them to 127.0.0.1, so that an application keeps the host name it has. A name of an upstream is allowed: the sidecar asks DNS for it.',
    'none',
  ),
  unix: optional(
    listenUnix,
    'A Unix socket that leads to the same place as the port, for an application that wants a path: any container of the pod may connect. It is made when the sidecar starts and removed when it ends.',
    'none',
  ),
  env: optional(
    z.boolean(),
    'Offers the containers of the application the variables by which libraries find a dependency: PGHOST, PGPORT and PGSSLMODE for PostgreSQL, REDIS_URL for Redis. A variable of their own is never replaced.',
    'false',
  ),
})

const specFields = z.object({
  protocol: doc(
    z.enum(['HTTP', 'TCP', 'Redis', 'PostgreSQL']),
    'What the application speaks. HTTP is HTTP/1.1, each request handled on its own; TCP hands the bytes of each connection through; Redis does so too, logs in with a credential and counts commands; PostgreSQL logs in for the application, which needs no password.',
  ),
  listen: doc(listen, 'Where the application finds the dependency.'),
  upstreams: doc(
    listMap(upstream, ['name'], 16).min(1),
    'Where the traffic goes: to the first one, unless routes say otherwise.',
  ),
  routes: optional(
    routes,
    'Which requests go to which upstream, in order: the first that matches wins, and what none matches goes to the first upstream. HTTP only.',
    'everything goes to the first upstream',
  ),
  retry: optional(
    retry,
    'Tries again what failed before the application hears of it. HTTP only.',
    'two retries of ConnectFailure and Reset for idempotent methods, with the defaults of its fields',
  ),
  timeouts: doc(timeouts, 'How long each step may take.').prefault({}),
  rateLimit: optional(rateLimit, 'Bounds what this pod sends, for a dependency that counts.', 'none'),
  accessLog: doc(accessLog, 'Which exchanges get a line in the log of the sidecar.').prefault({}),
  egress: optional(
    egress,
    'What this Ambassador may ever dial, whatever endpoints, DNS, SRV records, files and requests say.',
    'whatever its upstreams lead to',
  ),
  tracing: optional(
    tracing,
    'Spans of the requests, for a collector of OpenTelemetry. HTTP only.',
    'none; traceparent and tracestate are passed on as they come',
  ),
  postgres: optional(postgres, 'What is done with the protocol of PostgreSQL. PostgreSQL only.', 'none of it'),
})
type Fields = z.output<typeof specFields>

const WITHOUT_PROBE = '!has(u.healthCheck.http) && !has(u.healthCheck.tcp) && !has(u.healthCheck.tls)'
const REMEDY = 'remove it or change the protocol'
const LOOPBACK = ['localhost', '127.0.0.1', '::1']
const ITSELF = `e.port == self.listen.port && e.host in ['${LOOPBACK.join("', '")}']`

/** The spec, with every rule that one object can tell. */
export const ambassadorSpec = rules(
  specFields,
  {
    cel: "self.protocol == 'HTTP' || !has(self.retry)",
    holds: (spec) => spec.protocol === 'HTTP' || spec.retry === undefined,
    field: ['retry'],
    message: `retry needs protocol HTTP: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'HTTP' || !has(self.timeouts) || !has(self.timeouts.request)",
    holds: (spec) => spec.protocol === 'HTTP' || spec.timeouts.request === undefined,
    field: ['timeouts', 'request'],
    message: `timeouts.request needs protocol HTTP: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'HTTP' || !has(self.tracing)",
    holds: (spec) => spec.protocol === 'HTTP' || spec.tracing === undefined,
    field: ['tracing'],
    message: `tracing needs protocol HTTP: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'PostgreSQL' || !has(self.postgres)",
    holds: (spec) => spec.protocol === 'PostgreSQL' || spec.postgres === undefined,
    field: ['postgres'],
    message: `postgres needs protocol PostgreSQL: ${REMEDY}`,
  },
  ...routeRules,
  upstreamNeedsHttp('fromHeader', 'has(u.fromHeader)', (each) => each.fromHeader !== undefined),
  {
    cel: '!self.upstreams.exists(u, has(u.fromHeader) && has(u.tls) && has(u.tls.serverName))',
    holds: (spec) => !spec.upstreams.some((each) => each.fromHeader && each.tls?.serverName !== undefined),
    field: ['upstreams'],
    message:
      'tls.serverName cannot be one name for every host of fromHeader: remove it, the certificate must be for the host',
  },
  {
    cel: "self.protocol == 'HTTP' || !self.upstreams.exists(u, has(u.auth) && !has(u.auth.postgres) && !has(u.auth.redis))",
    holds: ({ protocol, upstreams }) =>
      protocol === 'HTTP' || !upstreams.some(({ auth }) => auth && !auth.postgres && !auth.redis),
    field: ['upstreams'],
    message: `upstreams[].auth needs protocol HTTP, other than auth.postgres and auth.redis: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'PostgreSQL' || !self.upstreams.exists(u, has(u.auth) && has(u.auth.postgres))",
    holds: (spec) => spec.protocol === 'PostgreSQL' || !spec.upstreams.some(({ auth }) => auth?.postgres),
    field: ['upstreams'],
    message: `upstreams[].auth.postgres needs protocol PostgreSQL: ${REMEDY}`,
  },
  {
    cel: "self.protocol != 'PostgreSQL' || self.upstreams.all(u, has(u.auth) && has(u.auth.postgres))",
    holds: (spec) => spec.protocol !== 'PostgreSQL' || spec.upstreams.every(({ auth }) => auth?.postgres),
    field: ['upstreams'],
    message:
      'protocol PostgreSQL logs in for the application: add auth.postgres to each upstream, or use protocol TCP, which hands the login through',
  },
  {
    cel: "self.protocol == 'Redis' || !self.upstreams.exists(u, has(u.auth) && has(u.auth.redis))",
    holds: (spec) => spec.protocol === 'Redis' || !spec.upstreams.some(({ auth }) => auth?.redis),
    field: ['upstreams'],
    message: `upstreams[].auth.redis needs protocol Redis: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'Redis' || !self.upstreams.exists(u, has(u.sentinel))",
    holds: (spec) => spec.protocol === 'Redis' || !spec.upstreams.some(({ sentinel }) => sentinel !== undefined),
    field: ['upstreams'],
    message: `upstreams[].sentinel needs protocol Redis: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'PostgreSQL' || !self.upstreams.exists(u, has(u.role))",
    holds: (spec) => spec.protocol === 'PostgreSQL' || !spec.upstreams.some(({ role }) => role !== undefined),
    field: ['upstreams'],
    message: `upstreams[].role needs protocol PostgreSQL: ${REMEDY}`,
  },
  {
    cel: "self.protocol == 'PostgreSQL' || !self.upstreams.exists(u, has(u.tls) && has(u.tls.negotiation))",
    holds: (spec) =>
      spec.protocol === 'PostgreSQL' || !spec.upstreams.some(({ tls }) => tls?.negotiation !== undefined),
    field: ['upstreams'],
    message: `upstreams[].tls.negotiation needs protocol PostgreSQL: ${REMEDY}`,
  },
  {
    cel: `self.protocol in ['PostgreSQL', 'Redis'] || !self.upstreams.exists(u, has(u.healthCheck) && ${WITHOUT_PROBE})`,
    holds: ({ protocol, upstreams }) =>
      protocol === 'PostgreSQL' ||
      protocol === 'Redis' ||
      !upstreams.some(({ healthCheck: check }) => check && !check.http && !check.tcp && !check.tls),
    field: ['upstreams'],
    message:
      'upstreams[].healthCheck needs one of http, tcp, tls: add one, only servers of PostgreSQL and Redis are checked without',
  },
  {
    cel: "self.protocol in ['PostgreSQL', 'Redis'] || !has(self.listen.env) || !self.listen.env",
    holds: ({ protocol, listen: { env } }) => protocol === 'PostgreSQL' || protocol === 'Redis' || env !== true,
    field: ['listen', 'env'],
    message: 'env needs protocol PostgreSQL or Redis, others have no variables that libraries know: remove it',
  },
  upstreamNeedsHttp(
    'limits.maxConcurrentRetries',
    'has(u.limits) && has(u.limits.maxConcurrentRetries)',
    (each) => each.limits.maxConcurrentRetries !== undefined,
  ),
  upstreamNeedsHttp(
    'limits.maxConnectionAge',
    'has(u.limits) && has(u.limits.maxConnectionAge)',
    (each) => each.limits.maxConnectionAge !== undefined,
  ),
  upstreamNeedsHttp(
    'limits.maxRequestsPerConnection',
    'has(u.limits) && has(u.limits.maxRequestsPerConnection)',
    (each) => each.limits.maxRequestsPerConnection !== undefined,
  ),
  upstreamNeedsHttp(
    'circuitBreaker.slowCall',
    'has(u.circuitBreaker) && has(u.circuitBreaker.slowCall)',
    (each) => each.circuitBreaker?.slowCall !== undefined,
  ),
  upstreamNeedsHttp(
    'loadBalancing.consistentHash',
    'has(u.loadBalancing) && has(u.loadBalancing.consistentHash)',
    (each) => each.loadBalancing.consistentHash !== undefined,
  ),
  ...listenUnixRules,
  upstreamNeedsHttp('pacing', 'has(u.pacing)', (each) => each.pacing !== undefined),
  {
    cel: `self.upstreams.all(u, !has(u.endpoints) || !u.endpoints.exists(e, ${ITSELF}))`,
    holds: (spec) => !ownEndpoint(spec),
    field: ['upstreams'],
    message:
      'an endpoint is the port of this pod that the Ambassador listens on, so it would call itself: change one of the two',
  },
)

/** Refuses a field of an upstream for another protocol than HTTP. */
function upstreamNeedsHttp(
  field: string,
  has: string,
  isGiven: (each: Fields['upstreams'][number]) => boolean,
): RuleOptions<Fields> {
  return {
    cel: `self.protocol == 'HTTP' || !self.upstreams.exists(u, ${has})`,
    holds: (spec) => spec.protocol === 'HTTP' || !spec.upstreams.some(isGiven),
    field: ['upstreams'],
    message: `upstreams[].${field} needs protocol HTTP: ${REMEDY}`,
  }
}

/** Whether an endpoint is this Ambassador's own port. */
function ownEndpoint(spec: Fields) {
  return spec.upstreams.some((each) =>
    each.endpoints?.some(({ host, port }) => port === spec.listen.port && LOOPBACK.includes(host)),
  )
}

/** The whole object. */
export const ambassador = z.object({
  apiVersion: z.literal(`${GROUP}/${VERSION}`),
  kind: z.literal(KIND),
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    uid: z.string().optional(),
    generation: z.int().optional(),
  }),
  spec: doc(ambassadorSpec, 'What a person wants: one dependency of an application.'),
  status: doc(ambassadorStatus, 'What the operator sees.').optional(),
})

/** A spec as it is stored or written: defaults may not be set yet. */
export type AmbassadorSpec = z.input<typeof ambassadorSpec>
/** A spec with the defaults of the schema; what depends on the protocol is still undefined and set by render(). */
export type DefaultedSpec = z.output<typeof ambassadorSpec>
export type Upstream = AmbassadorSpec['upstreams'][number]
export type DefaultedUpstream = DefaultedSpec['upstreams'][number]
export type { AmbassadorStatus } from './status.ts'

/** An Ambassador as the API server stores it. */
export interface Ambassador {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid?: string
    readonly generation?: number
    readonly resourceVersion?: string
    readonly creationTimestamp?: string
    readonly deletionTimestamp?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: AmbassadorSpec
  readonly status?: z.infer<typeof ambassadorStatus>
}
