/** One place where the traffic of an Ambassador goes: where it is, and how a connection or request to it is made. */
import { z } from 'zod'
import { isShorter } from '../../common/duration.ts'
import { PROXY_PROTOCOLS, ROLES } from '../../common/proxy-config.ts'
import {
  atMostOne,
  choice,
  configMapKeyRef,
  dnsName,
  doc,
  duration,
  exactlyOne,
  host,
  integer,
  label,
  listMap,
  listSet,
  notDurations,
  objectName,
  optional,
  percent,
  port,
  rule,
  rules,
  secretKeyRef,
  servicePort,
} from '../../common/schema-kit.ts'
import { loadBalancing } from './balancing.ts'
import { writtenFieldName } from './fields.ts'
import { fromHeader } from './from-header.ts'
import { pacing } from './pacing.ts'
import { redisAuth, sentinel } from './sentinel.ts'
import { tls, tlsFields } from './tls.ts'
import { unix } from './unix.ts'

const ZONE_PATTERN = '^[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?$'
const ZONE_REMEDY = 'use what the label topology.kubernetes.io/zone of its node says, such as eu-west-1a'

const zone = () =>
  rule(z.string().max(63), {
    cel: `self.matches('${ZONE_PATTERN}')`,
    holds: (text) => new RegExp(ZONE_PATTERN).test(text),
    message: `not the name of a zone: ${ZONE_REMEDY}`,
    says: {
      cel: `"'" + self + "' is not the name of a zone: ${ZONE_REMEDY}"`,
      text: (text) => `'${text}' is not the name of a zone: ${ZONE_REMEDY}`,
    },
  })

const endpoint = z.object({
  host: doc(
    host(),
    'DNS name or IP address. A name is looked up again when its record expires, and each of its addresses is an endpoint of this weight and priority.',
  ),
  port: doc(port(), 'TCP port.'),
  weight: doc(integer(1, 1000), 'Share of the traffic relative to the other endpoints of the same priority.').default(
    1,
  ),
  priority: doc(
    integer(0, 15),
    'Endpoints of the lowest number are used; those of the next one only while none of a lower one is available.',
  ).default(0),
  zone: optional(zone(), 'Zone that it is in, for loadBalancing.zonePreference.', 'not known'),
})

const dns = z.object({
  hostname: doc(
    dnsName(),
    'DNS name of which every A and AAAA record is an endpoint, looked up again when the record expires.',
  ),
  port: doc(port(), 'TCP port of every endpoint.'),
})

/** RFC 2782: the service and its protocol, each behind an underscore, then the domain, which the search list may complete. */
const SRV_PATTERN = '^_[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]_[a-zA-Z]+([.][-_a-zA-Z0-9]{1,63})*[.]?$'
const SRV_PORT = 'give the name alone, the port is in its record'
const SRV_SHAPE = 'begin with service and protocol, each with an underscore, such as _redis._tcp.example.com'

const srv = z.object({
  name: doc(
    rule(z.string().max(253), {
      cel: `self.matches('${SRV_PATTERN}')`,
      holds: (text) => new RegExp(SRV_PATTERN).test(text),
      message: `not the name of an SRV record: ${SRV_SHAPE}`,
      says: {
        cel: `"'" + self + "' is not the name of an SRV record: " + (self.matches('^[^:]+:[0-9]+$') ? '${SRV_PORT}' : '${SRV_SHAPE}')`,
        text: (text) =>
          `'${text}' is not the name of an SRV record: ${/^[^:]+:[0-9]+$/.test(text) ? SRV_PORT : SRV_SHAPE}`,
      },
    }),
    'Name of the SRV records (RFC 2782). Each target gives endpoints with its port, priority and weight, which its addresses share; records and addresses are looked up again when they expire.',
  ),
})

const service = z.object({
  name: doc(label(), 'Name of the Service.'),
  namespace: optional(
    label(),
    'Namespace of the Service. Another one than that of the Ambassador must allow it: the Service there carries the annotation `ambassador.dev/allow-from` with the names of namespaces, or `*`.',
    'that of the Ambassador',
  ),
  port: doc(servicePort(), 'Port of the Service, by number or by name.'),
})

const headerName = writtenFieldName('a credential cannot be in it')

const BYTE = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const URL_HOST = `(([a-zA-Z0-9_-]+[.])*[a-zA-Z][a-zA-Z0-9_-]*|(${BYTE}[.]){3}${BYTE})`
const URL_PORT = '(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?'
/** `http://host:port/path` without user, fragment and address of IPv6. */
export const URL_PATTERN = `^https?://${URL_HOST}${URL_PORT}(/[!$-~]*)?$`
const URL_REMEDY = 'use https://host/path'

const tokenUrl = rule(z.string().max(1024), {
  cel: `self.matches('${URL_PATTERN}')`,
  holds: (text) => new RegExp(URL_PATTERN).test(text) && URL.canParse(text),
  message: `not a URL of HTTP: ${URL_REMEDY}`,
})

/** Words of a scope (RFC 6749 section 3.3). */
const SCOPE_PATTERN = '^[!#-[\\]-~]+$'

const scope = rule(z.string().max(256), {
  cel: `self.matches('${SCOPE_PATTERN.replaceAll('\\', '\\\\')}')`,
  holds: (text) => new RegExp(SCOPE_PATTERN).test(text),
  message: 'not a scope: use one word for each item of the list',
})

const oauth2 = rule(
  z.object({
    tokenUrl: doc(tokenUrl, 'URL of the token endpoint, such as https://login.example.com/oauth2/token.'),
    clientId: doc(z.string().min(1).max(256), 'Client identifier.'),
    clientSecret: doc(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the client secret.') }),
      'Client secret, read again for each token.',
    ),
    scopes: optional(listSet(scope, 32), 'Scopes that are asked for.', 'those that the issuer gives'),
    audience: optional(z.string().min(1).max(1024), 'Audience that is asked for, for issuers that know it.', 'none'),
    tls: optional(
      tlsFields.omit({ serverName: true, insecureSkipVerify: true, negotiation: true }),
      'How the token URL is trusted; needs https.',
      'verified by the system roots',
    ),
  }),
  {
    cel: "!has(self.tls) || self.tokenUrl.startsWith('https://')",
    holds: (value) => value.tls === undefined || value.tokenUrl.startsWith('https://'),
    field: ['tls'],
    message: 'tls needs a tokenUrl of https: change the URL or remove tls',
  },
)

const username = rule(z.string().min(1).max(63), {
  cel: `!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')`,
  holds: (text) => !/[\x00-\x1f\x7f]/.test(text),
  message: 'has a control character: write the name of the user',
})

const AUDIENCE_PATTERN = '^[!-~]+$'

const audience = rule(z.string().max(512), {
  cel: `self.matches('${AUDIENCE_PATTERN}')`,
  holds: (text) => new RegExp(AUDIENCE_PATTERN).test(text),
  message: 'not an audience: use a name or URL without spaces, such as https://vault.example.com',
})

const serviceAccountToken = z.object({
  audience: doc(
    audience,
    'Whom the token is for: the name that the upstream expects in it. Nobody else accepts it, the API server included.',
  ),
  expirationSeconds: doc(
    integer(600, 604_800),
    'Life of a token in seconds. The kubelet writes a new one when 80 % of it is over, or a day; the API server may allow less.',
  ).default(3600),
})

const AWS_NAME_PATTERN = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'

function awsName(example: string) {
  const remedy = `use lower-case letters, digits and dashes, such as ${example}`
  return rule(z.string().max(63), {
    cel: `self.matches('${AWS_NAME_PATTERN}')`,
    holds: (text) => new RegExp(AWS_NAME_PATTERN).test(text),
    message: `not a name of AWS: ${remedy}`,
    says: {
      cel: `"'" + self + "' is not a name of AWS: ${remedy}"`,
      text: (text) => `'${text}' is not a name of AWS: ${remedy}`,
    },
  })
}

const TOKEN_LIFE =
  'Fetched when a connection needs one, used for later ones until a fifth of its life is left, and sent inside TLS alone.'

/** What the sidecar proves by that it is the user; exactly one is given. */
const PROOFS = ['password', 'awsRdsIam', 'gcpCloudSqlIam', 'azureEntra'] as const

const postgresAuth = exactlyOne(
  z.object({
    username: doc(username, 'User that the sidecar logs in as, whatever user the application names.'),
    password: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the password.') }),
      'Password of that user, sent by SCRAM-SHA-256 (bound to the TLS channel where the server offers it) or MD5, and in clear text only inside TLS. Read again for new connections when it changes.',
      'none',
    ),
    awsRdsIam: optional(
      z.object({
        region: doc(awsName('us-east-1'), 'Region that the database is in.'),
      }),
      `Logs in with a token that the role of the pod (IRSA, Pod Identity, environment, node) signs for the host, port and user of RDS or Aurora. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    gcpCloudSqlIam: optional(
      choice(),
      `Logs in with an access token of the service account of the pod (Workload Identity) for Cloud SQL or AlloyDB; written as \`gcpCloudSqlIam: {}\`. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    azureEntra: optional(
      choice(),
      `Logs in with a token of Microsoft Entra for the workload or managed identity of the pod; written as \`azureEntra: {}\`. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    clientPassword: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the password.') }),
      'Password that the application itself must give, as any user, by SCRAM-SHA-256: for pods in which not every container may use the database. It never goes to the server. Read again for new connections when it changes.',
      'none, the application needs no password',
    ),
  }),
  PROOFS,
  'auth.postgres',
)

const auth = exactlyOne(
  z.object({
    bearer: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the token.') }),
      'Sends `Authorization: Bearer` with a token.',
      'none',
    ),
    basic: optional(
      z.object({
        secretName: doc(objectName(), 'Secret of type kubernetes.io/basic-auth with the keys username and password.'),
      }),
      'Sends `Authorization: Basic` with a user name and a password.',
      'none',
    ),
    header: optional(
      z.object({
        name: doc(headerName, 'Name of the header field. What the application sends under it is replaced.'),
        secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the value.'),
      }),
      'Sends a header field of any name, such as X-Api-Key.',
      'none',
    ),
    serviceAccountToken: optional(
      serviceAccountToken,
      'Sends `Authorization: Bearer` with a token of the service account of the pod, which the kubelet writes into the sidecar alone and renews. The pod must have been started since this was added.',
      'none',
    ),
    oauth2ClientCredentials: optional(
      oauth2,
      'Sends `Authorization: Bearer` with a token of an OAuth 2.0 issuer, fetched once for all requests, renewed before it expires and used until it does. Requests before the first token wait, within timeouts.connect; an answer 401 of the upstream makes another token be fetched, and what can be sent again is.',
      'none',
    ),
    redis: optional(
      redisAuth,
      'Logs in each connection to Redis. The application needs no password, and one that it sends is not looked at.',
      'none',
    ),
    awsSigV4: optional(
      z.object({
        service: doc(
          awsName('execute-api'),
          'Name of the service in signatures, such as s3, execute-api, es or dynamodb.',
        ),
        region: doc(awsName('us-east-1'), 'Region that the service is in.'),
      }),
      'Signs each attempt with Signature Version 4 and the keys of the role of the pod (IRSA, Pod Identity, environment, node). A body is kept up to retry.maxBufferedBody to be signed; a larger one goes to S3 as UNSIGNED-PAYLOAD and is refused with 413 for any other service.',
      'none',
    ),
    gcpIdToken: optional(
      z.object({
        audience: doc(audience, 'Whom the token is for, such as the URL of a service on Cloud Run.'),
      }),
      'Sends `Authorization: Bearer` with an ID token of Google for the service account of the pod (Workload Identity), fetched and renewed as a token of oauth2ClientCredentials is.',
      'none',
    ),
    postgres: optional(
      postgresAuth,
      'Logs in at a PostgreSQL server, so that the application needs no password. PostgreSQL only.',
      'none',
    ),
  }),
  [
    'bearer',
    'basic',
    'header',
    'serviceAccountToken',
    'oauth2ClientCredentials',
    'awsSigV4',
    'gcpIdToken',
    'redis',
    'postgres',
  ],
  'auth',
)

const failureRate = z.object({
  ratio: doc(percent({ positive: true }), 'Share of failures at which the circuit opens.'),
  minimumRequests: doc(integer(1, 100_000), 'With fewer attempts than this in the window nothing is decided.').default(
    20,
  ),
  window: doc(duration(), 'How far back attempts are counted.').default('10s'),
})

const slowCall = z.object({
  duration: doc(
    duration(),
    'An attempt is slow when its answer begins this long after the end of the request, or later; a probe that is slow has failed.',
  ),
  ratio: doc(percent({ positive: true }), 'Share of slow attempts at which the circuit opens.'),
  minimumRequests: doc(integer(1, 100_000), 'With fewer attempts than this in the window nothing is decided.').default(
    20,
  ),
  window: doc(duration(), 'How far back attempts are counted.').default('10s'),
})

const circuitBreaker = rule(
  z.object({
    consecutiveFailures: optional(
      integer(1, 1000),
      'The circuit of an endpoint opens after this many failed attempts in a row. A failure is a connection that cannot be made or breaks, a time-out, or an answer of 500 and above other than 501 and 505.',
      '5 without failureRate, else not counted',
    ),
    failureRate: optional(
      failureRate,
      'The circuit of an endpoint opens when this share of the latest attempts failed. Together with consecutiveFailures, whichever comes first.',
      'not counted',
    ),
    slowCall: optional(
      slowCall,
      'The circuit of an endpoint opens when this share of the latest attempts was slow, whether they failed or not. HTTP only.',
      'not counted',
    ),
    openDuration: doc(
      duration(),
      'How long an open circuit refuses before it lets a probe through. Doubles, up to maxOpenDuration, each time the probe fails.',
    ).default('30s'),
    maxOpenDuration: optional(
      duration(),
      'Longest time that the circuit stays open between two probes.',
      '5m, or openDuration when that is longer',
    ),
    halfOpenRequests: doc(
      integer(1, 100),
      'Probes that are let through at a time after openDuration, and that must all succeed to close the circuit.',
    ).default(1),
  }),
  {
    cel: `!has(self.maxOpenDuration) || ${notDurations('self.openDuration', 'self.maxOpenDuration')} || duration(self.maxOpenDuration) >= duration(self.openDuration)`,
    holds: (value) => !isShorter(value.maxOpenDuration, value.openDuration),
    field: ['maxOpenDuration'],
    message: 'maxOpenDuration is shorter than openDuration: make it at least as long',
    says: {
      cel: `"'" + self.maxOpenDuration + "' is shorter than openDuration '" + self.openDuration + "': make it at least as long"`,
      text: (value) =>
        `'${value.maxOpenDuration}' is shorter than openDuration '${value.openDuration}': make it at least as long`,
    },
  },
)

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

const PATH_PATTERN = '^/[!-~]*$'
const checkPort = optional(port(), 'Port that is checked.', 'that of the endpoint')
const httpCheck = z.object({
  port: checkPort,
  path: doc(
    rule(z.string().max(1024), {
      cel: `self.matches('${PATH_PATTERN}')`,
      holds: (text) => new RegExp(PATH_PATTERN).test(text),
      message: 'not a path: begin with a slash, without spaces, such as /healthz',
      says: {
        cel: `"'" + self + "' is not a path: begin with a slash, without spaces, such as /healthz"`,
        text: (text) => `'${text}' is not a path: begin with a slash, without spaces, such as /healthz`,
      },
    }),
    'Path that is asked for with GET over HTTP/1.1, with its query if it has one. TLS and Host are those of the upstream.',
  ),
  expectedStatuses: optional(
    listSet(integer(200, 599), 20).min(1),
    'Statuses of a healthy endpoint, as numbers.',
    '200 to 399',
  ),
})

const healthCheck = rule(
  atMostOne(
    z.object({
      http: optional(httpCheck, 'Healthy is what answers a GET with an expected status.', 'none'),
      tcp: optional(
        z.object({ port: checkPort }),
        'Healthy is what accepts a connection; written as `tcp: {}`.',
        'none',
      ),
      tls: optional(
        z.object({ port: checkPort }),
        'Healthy is what ends a TLS handshake with a certificate that is trusted; written as `tls: {}`.',
        'none',
      ),
      interval: doc(duration(), 'From the end of a check to the next one, give or take a tenth. At least 1s.').default(
        '10s',
      ),
      timeout: doc(duration(), 'A check that takes longer has failed.').default('2s'),
      unhealthyThreshold: doc(integer(1, 100), 'Failed checks in a row that make an endpoint unhealthy.').default(3),
      healthyThreshold: doc(integer(1, 100), 'Passed checks in a row that make it healthy again.').default(2),
    }),
    ['http', 'tcp', 'tls'],
    'healthCheck',
  ),
  {
    cel: `${notDurations('self.interval')} || duration(self.interval) >= duration('1s')`,
    holds: ({ interval }) => !isShorter(interval, '1s'),
    field: ['interval'],
    message: 'too often for a check: use at least 1s',
    says: {
      cel: `"'" + self.interval + "' is too often for a check: use at least 1s"`,
      text: ({ interval }) => `'${interval}' is too often for a check: use at least 1s`,
    },
  },
)

const outlierDetection = z.object({
  consecutiveFailures: doc(
    integer(1, 1000),
    'An endpoint is ejected after this many failed attempts in a row; what a failure is, circuitBreaker says.',
  ).default(5),
  ejectionTime: doc(
    duration(),
    'How long it gets no attempts, times the number of ejections in a row, up to 5m or this when it is longer.',
  ).default('30s'),
  maxEjected: doc(
    percent(),
    'Largest share of the endpoints that is ejected at a time. One may always be ejected while another is up.',
  ).default('50%'),
})

/** The ways to say where an upstream is. */
const WHERE = ['endpoints', 'dns', 'srv', 'sentinel', 'service', 'file', 'unix', 'fromHeader'] as const
const ONE_OF = `Exactly one of ${WHERE.join(', ')} must be given.`

const HAS_TOKEN = PROOFS.slice(1)
  .map((key) => `has(self.auth.postgres.${key})`)
  .join(' || ')

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
    holds: ({ tls, auth }) => tls !== undefined || !PROOFS.slice(1).some((key) => auth?.postgres?.[key] !== undefined),
    field: ['auth'],
    message: 'a token for a database is sent inside TLS alone: add tls, or use password',
  },
)
