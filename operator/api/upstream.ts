/** One place where the traffic of an Ambassador goes: where it is, and how a connection or request to it is made. */
import { z } from 'zod'
import { PROXY_PROTOCOLS, ROLES } from '../../common/proxy-config.ts'
import {
  configMapKeyRef,
  doc,
  duration,
  exactlyOne,
  integer,
  label,
  listMap,
  optional,
  rules,
} from '../../common/schema-kit.ts'
import { auth, DATABASE_TOKENS } from './auth.ts'
import { loadBalancing } from './balancing.ts'
import { dns, endpoint, service, srv } from './endpoints.ts'
import { fromHeader } from './from-header.ts'
import { circuitBreaker, healthCheck, outlierDetection } from './health.ts'
import { pacing } from './pacing.ts'
import { sentinel } from './sentinel.ts'
import { tls } from './tls.ts'
import { unix } from './unix.ts'

const limits = z.object({
  maxConnections: doc(integer(1, 100_000), 'Connections to this upstream that are open at once.').default(1024),
  maxPendingRequests: doc(
    integer(0, 100_000),
    'Requests (HTTP) or connections (TCP) that wait for one of those connections; more are refused with queue_full.',
  ).default(1024),
  maxConcurrentRetries: optional(
    integer(0, 100_000),
    'Retries to this upstream that run at once, besides the budget of the retry policy. HTTP only.',
    '64',
  ),
  maxConnectionAge: optional(
    duration({ zero: true }),
    'A connection takes no request any more after this time, give or take a tenth, so that load follows DNS and rotated certificates. The request under way ends first. `0s`: it may be of any age. HTTP only.',
    '10m',
  ),
  maxRequestsPerConnection: optional(
    integer(1, 1_000_000_000),
    'Requests on one connection, up to a tenth less so that connections of one age do not end together. HTTP only.',
    '10000',
  ),
})

/** The ways to say where an upstream is. */
const WHERE = ['endpoints', 'dns', 'srv', 'sentinel', 'service', 'file', 'unix', 'fromHeader'] as const
const ONE_OF = `Exactly one of ${WHERE.join(', ')} must be given.`

const HAS_TOKEN = DATABASE_TOKENS.map((key) => `has(self.auth.postgres.${key})`).join(' || ')

const WITHOUT_ZONES =
  "!has(self.loadBalancing) || !has(self.loadBalancing.zonePreference) || self.loadBalancing.zonePreference == 'None'"

export const upstream = rules(
  exactlyOne(
    z.object({
      name: doc(label(), 'Name of the upstream, in status, metrics and log lines.'),
      endpoints: optional(
        listMap(endpoint, ['host', 'port'], 64).min(1),
        `Hosts and ports, written out. ${ONE_OF}`,
        'none',
      ),
      dns: optional(dns, `A DNS name of which every address is an endpoint of the same weight. ${ONE_OF}`, 'none'),
      srv: optional(
        srv,
        `DNS SRV records that say where the endpoints are, with their ports, priorities and weights. ${ONE_OF}`,
        'none',
      ),
      sentinel: optional(
        sentinel,
        `The Sentinels of a Redis, which say where its master or its replicas are; connections follow a failover. Redis only. ${ONE_OF}`,
        'none',
      ),
      service: optional(
        service,
        `A Kubernetes Service, headless or not. Its pods are the endpoints, without the load balancing of the node in between; the operator follows them, and sidecars need no rights. ${ONE_OF}`,
        'none',
      ),
      file: optional(
        z.object({
          configMapKeyRef: doc(
            configMapKeyRef(),
            'Key of a ConfigMap with the list: `host:port weight=N priority=N zone=NAME`, one endpoint a line. Read again when it changes; a list with a mistake, or without an endpoint, leaves the last good one in use.',
          ),
        }),
        `A list of endpoints that another program keeps up to date. ${ONE_OF}`,
        'none',
      ),
      unix: optional(
        unix,
        `A Unix socket. In a pod it is found where a container of the pod mounts the volume that it is in; a server of another user must let the sidecar write to it. ${ONE_OF}`,
        'none',
      ),
      fromHeader: optional(
        fromHeader,
        `The host that each request names in a header field. Limits, circuit breakers and connections are those of each host. HTTP only. ${ONE_OF}`,
        'none',
      ),
      tls: optional(
        tls,
        'TLS to the upstream, verified by chain and name; `{}` is enough for a public one. It begins with the first byte, for PostgreSQL with its SSLRequest.',
        'plain text',
      ),
      auth: optional(
        auth,
        'Credential that is added to each request (HTTP) or that the sidecar logs in by (Redis, PostgreSQL), read from a Secret that is mounted in the sidecar alone and read again when it changes. Exactly one of its fields must be given.',
        'none',
      ),
      role: optional(
        z.enum(ROLES),
        'What a PostgreSQL server must be to get a connection, asked of it (pg_is_in_recovery) at each login: Primary is one that takes writes, Replica is a standby. Another one is passed over, and while there is none a connection is held, within timeouts.connect. PostgreSQL only.',
        'Primary where endpoints of different priorities are written out, else Any',
      ),
      proxyProtocol: optional(
        z.enum(PROXY_PROTOCOLS),
        'Version of the PROXY protocol header that goes before the first byte of each connection, before TLS too. It tells the addresses of the connection itself, those of the pod and of the endpoint; that of a health check tells none.',
        'none',
      ),
      loadBalancing: doc(loadBalancing, 'Which endpoint an attempt (HTTP) or connection (TCP) goes to.').prefault({}),
      drainDeadline: optional(
        duration(),
        'How long a request, a transaction or a connection may go on at an endpoint that has left (it is gone from DNS, the list, the Service or this spec), before it is cut. Nothing new begins there, and what can be moved at a boundary is. Where nobody answers any more it is cut at once in any case.',
        'it may go on for ever',
      ),
      healthCheck: optional(
        healthCheck,
        'Checks each endpoint from each sidecar; an unhealthy one gets nothing while another is healthy, and when none is they are all tried. A passing check does not close a circuit that traffic opened. One of http, tcp and tls must be given; without one, a check of a PostgreSQL or Redis server logs in and asks for its role; that of Redis must be master where endpoints of different priorities are written out, that of `sentinel` there, else it answers PING.',
        'no checks',
      ),
      outlierDetection: optional(
        outlierDetection,
        'Ejects an endpoint that keeps failing while others do not; `{}` does so after 5 failures in a row. Unlike circuitBreaker it never refuses anything.',
        'nothing is ejected',
      ),
      circuitBreaker: optional(
        circuitBreaker,
        'Stops sending to an endpoint that keeps failing; `{}` opens after 5 failures in a row.',
        'none',
      ),
      limits: doc(limits, 'Bounds what this upstream may use.').prefault({}),
      pacing: optional(
        pacing,
        'Slows requests down to what the upstream says it takes: none for the time of the Retry-After of its 429 and 503, and further apart when its RateLimit fields (or RateLimit-Remaining and X-RateLimit-Remaining with their Reset) say that less than a quarter of its quota is left. `{}` is enough. HTTP only.',
        'what it says is passed on to the application, and nothing else',
      ),
    }),
    WHERE,
    'an upstream',
  ),
  {
    cel: '!has(self.healthCheck) || !has(self.healthCheck.tls) || has(self.tls)',
    holds: (value) => value.healthCheck?.tls === undefined || value.tls !== undefined,
    field: ['healthCheck'],
    message: 'a check of TLS needs tls on the upstream: add it, or use tcp',
  },
  {
    cel: `${WITHOUT_ZONES} || has(self.service) || has(self.file) || (has(self.endpoints) && self.endpoints.exists(e, has(e.zone)))`,
    holds: ({ loadBalancing: { zonePreference = 'None' }, service, file, endpoints }) =>
      zonePreference === 'None' ||
      service !== undefined ||
      file !== undefined ||
      (endpoints ?? []).some((each) => each.zone !== undefined),
    field: ['loadBalancing', 'zonePreference'],
    message: 'nothing says which zone an endpoint is in: use service or file, or add zone to endpoints',
  },
  {
    cel: `has(self.tls) || !has(self.auth) || !has(self.auth.postgres) || !(${HAS_TOKEN})`,
    holds: ({ tls, auth }) => tls !== undefined || !DATABASE_TOKENS.some((key) => auth?.postgres?.[key] !== undefined),
    field: ['auth'],
    message: 'a token for a database is sent inside TLS alone: add tls, or use password',
  },
)
