/** Upstreams become clusters: endpoints, TLS, credential, breaker and limits, with every default written out. */
import { durationMs } from '../../common/duration.ts'
import { tokenName } from '../../common/object-names.ts'
import type {
  AuthConfig,
  BalancingConfig,
  BreakerConfig,
  ClusterConfig,
  DataRef,
  DiscoveryConfig,
  HealthCheckConfig,
  LimitsConfig,
  OutlierConfig,
  RoleConfig,
  TlsConfig,
} from '../../common/proxy-config.ts'
import { percentRatio } from '../../common/quantity.ts'
import type { DefaultedUpstream } from '../api/ambassador.ts'
import { BASIC_AUTH_KEYS, TLS_KEYS } from './references.ts'
import { type ServiceLookup, type ServiceRef, serviceRef } from './services.ts'

/** Without any detector of its own, a circuit breaker opens after this many failures in a row. */
const CONSECUTIVE_FAILURES = 5
const MAX_OPEN_MS = 300_000
const CONCURRENT_RETRIES = 64
const MAX_EJECTION_MS = 300_000

/** What rendering an upstream depends on besides itself. */
export interface ClusterContext {
  /** Of the Ambassador. */
  readonly namespace: string
  readonly services: ServiceLookup
}

/** One upstream of a checked spec. */
export function cluster(upstream: DefaultedUpstream, { namespace, services }: ClusterContext): ClusterConfig {
  return {
    name: upstream.name,
    discovery: discovery(upstream, namespace, services),
    tls: upstream.tls ? tls(upstream.tls) : null,
    auth: upstream.auth ? auth(upstream.auth) : null,
    circuitBreaker: upstream.circuitBreaker ? breaker(upstream.circuitBreaker) : null,
    limits: limits(upstream.limits),
    // Left out where it is what an older sidecar does anyway: then an upgrade of the operator changes no config.
    ...(upstream.proxyProtocol && { proxyProtocol: upstream.proxyProtocol }),
    ...(upstream.drainDeadline && { drainDeadlineMs: durationMs(upstream.drainDeadline)! }),
    ...(isBalancingSet(upstream.loadBalancing) && { loadBalancing: balancing(upstream.loadBalancing) }),
    ...(upstream.healthCheck && { healthCheck: healthCheck(upstream.healthCheck, upstream) }),
    ...(role(upstream) !== 'Any' && { role: role(upstream) }),
    ...(upstream.outlierDetection && { outlierDetection: outlierDetection(upstream.outlierDetection) }),
    ...(upstream.pacing && { pacing: { maxDelayMs: durationMs(upstream.pacing.maxDelay)! } }),
  }
}

function discovery(
  { endpoints, dns, srv, sentinel, service, file, unix, fromHeader }: DefaultedUpstream,
  namespace: string,
  services: ServiceLookup,
): DiscoveryConfig {
  if (service) return serviceDiscovery(serviceRef(service, namespace), services)
  if (fromHeader) return { kind: 'fromHeader', name: fromHeader.name, allowed: fromHeader.allowed }
  if (dns) return { kind: 'dns', hostname: dns.hostname, port: dns.port }
  if (file) return { kind: 'file', ref: configMap(file.configMapKeyRef) }
  if (unix) return { kind: 'unix', path: unix.path }
  if (srv) return { kind: 'srv', name: srv.name }
  if (sentinel) return sentinelDiscovery(sentinel)
  return {
    kind: 'endpoints',
    endpoints: (endpoints ?? []).map(({ host, port, weight, priority, zone }) => {
      return { host, port, weight, priority, ...(zone !== undefined && { zone }) }
    }),
  }
}

function serviceDiscovery(ref: ServiceRef, services: ServiceLookup): DiscoveryConfig {
  const found = services(ref)
  if (found.kind === 'name') return { kind: 'dns', hostname: found.hostname, port: found.port }
  return {
    kind: 'service',
    namespace: ref.namespace,
    name: ref.name,
    port: String(ref.port),
    host: `${ref.name}.${ref.namespace}.svc`,
    endpoints: [...found.endpoints],
  }
}

function sentinelDiscovery(given: NonNullable<DefaultedUpstream['sentinel']>): DiscoveryConfig {
  const { masterName, sentinels, role, auth: own, tls: ownTls } = given
  return {
    kind: 'sentinel',
    masterName,
    sentinels: sentinels.map(({ host, port }) => ({ host, port })),
    role,
    auth: own ? redisAuth(own.redis) : null,
    tls: ownTls ? tls(ownTls) : null,
  }
}

function redisAuth({ username, password }: NonNullable<NonNullable<DefaultedUpstream['auth']>['redis']>) {
  return { kind: 'redis', username: username ?? null, password: secret(password.secretKeyRef) } as const
}

function tls(given: Omit<NonNullable<DefaultedUpstream['tls']>, 'serverName'> & { serverName?: string }): TlsConfig {
  const { serverName, ca, clientCertificate, minVersion, negotiation, insecureSkipVerify } = given
  const secretName = clientCertificate?.secretName
  return {
    serverName: serverName ?? null,
    ca: ca?.secretKeyRef ? secret(ca.secretKeyRef) : ca?.configMapKeyRef ? configMap(ca.configMapKeyRef) : null,
    clientCertificate: secretName
      ? {
          certificate: { kind: 'secret', name: secretName, key: TLS_KEYS.certificate },
          privateKey: { kind: 'secret', name: secretName, key: TLS_KEYS.privateKey },
        }
      : null,
    minVersion,
    ...(negotiation === 'Direct' && { negotiation }),
    ...(insecureSkipVerify && { insecureSkipVerify }),
  }
}

function auth(given: NonNullable<DefaultedUpstream['auth']>): AuthConfig | null {
  const {
    bearer,
    basic,
    header,
    serviceAccountToken,
    oauth2ClientCredentials: oauth2,
    gcpIdToken,
    awsSigV4,
    redis,
    postgres,
  } = given
  if (redis) return redisAuth(redis)
  if (awsSigV4) return { kind: 'awsSigV4', service: awsSigV4.service, region: awsSigV4.region }
  if (postgres) return postgresAuth(postgres)
  if (gcpIdToken) return { kind: 'gcpIdToken', audience: gcpIdToken.audience }
  if (serviceAccountToken) {
    const { audience, expirationSeconds } = serviceAccountToken
    return {
      kind: 'serviceAccountToken',
      token: { kind: 'token', name: tokenName(audience, expirationSeconds), audience },
    }
  }
  if (oauth2) {
    return {
      kind: 'oauth2ClientCredentials',
      tokenUrl: oauth2.tokenUrl,
      clientId: oauth2.clientId,
      clientSecret: secret(oauth2.clientSecret.secretKeyRef),
      scopes: oauth2.scopes ?? [],
      audience: oauth2.audience ?? null,
      tls: oauth2.tls ? tls(oauth2.tls) : null,
    }
  }
  if (bearer) return { kind: 'bearer', token: secret(bearer.secretKeyRef) }
  if (header) return { kind: 'header', name: header.name, value: secret(header.secretKeyRef) }
  if (!basic) return null
  return {
    kind: 'basic',
    username: { kind: 'secret', name: basic.secretName, key: BASIC_AUTH_KEYS.username },
    password: { kind: 'secret', name: basic.secretName, key: BASIC_AUTH_KEYS.password },
  }
}

function postgresAuth(given: NonNullable<NonNullable<DefaultedUpstream['auth']>['postgres']>): AuthConfig {
  const { username, password, awsRdsIam, gcpCloudSqlIam, azureEntra, clientPassword } = given
  return {
    kind: 'postgres',
    username,
    password: password ? secret(password.secretKeyRef) : null,
    ...(awsRdsIam && { token: { kind: 'awsRdsIam', region: awsRdsIam.region } }),
    ...(gcpCloudSqlIam && { token: { kind: 'gcpCloudSqlIam' } }),
    ...(azureEntra && { token: { kind: 'azureEntra' } }),
    ...(clientPassword && { clientPassword: secret(clientPassword.secretKeyRef) }),
  }
}

function breaker(given: NonNullable<DefaultedUpstream['circuitBreaker']>): BreakerConfig {
  const { consecutiveFailures, failureRate, slowCall, openDuration, maxOpenDuration, halfOpenRequests } = given
  const openMs = durationMs(openDuration)!
  return {
    consecutiveFailures: consecutiveFailures ?? (failureRate ? null : CONSECUTIVE_FAILURES),
    failureRate: failureRate
      ? {
          ratio: percentRatio(failureRate.ratio)!,
          minimumRequests: failureRate.minimumRequests,
          windowMs: durationMs(failureRate.window)!,
        }
      : null,
    ...(slowCall && {
      slowCall: {
        durationMs: durationMs(slowCall.duration)!,
        ratio: percentRatio(slowCall.ratio)!,
        minimumRequests: slowCall.minimumRequests,
        windowMs: durationMs(slowCall.window)!,
      },
    }),
    openMs,
    maxOpenMs: maxOpenDuration ? durationMs(maxOpenDuration)! : Math.max(MAX_OPEN_MS, openMs),
    halfOpenRequests,
  }
}

function isBalancingSet(given: DefaultedUpstream['loadBalancing']): boolean {
  return Object.keys(balancing(given)).length > 1 || given.policy !== 'LeastRequest'
}

function balancing(given: DefaultedUpstream['loadBalancing']): BalancingConfig {
  const { policy, consistentHash, slowStart, panicThreshold, zonePreference } = given
  const { header, cookie, query } = consistentHash ?? {}
  return {
    policy,
    ...(header !== undefined && { hashOn: { kind: 'header', name: header.toLowerCase() } }),
    ...(cookie !== undefined && { hashOn: { kind: 'cookie', name: cookie } }),
    ...(query !== undefined && { hashOn: { kind: 'query', name: query } }),
    ...(slowStart !== undefined && { slowStartMs: durationMs(slowStart)! }),
    ...(panicThreshold !== undefined && { panicThreshold: percentRatio(panicThreshold)! }),
    ...(zonePreference === 'SameZone' && { zonePreference }),
  }
}

function healthCheck(
  given: NonNullable<DefaultedUpstream['healthCheck']>,
  upstream: DefaultedUpstream,
): HealthCheckConfig {
  const { http, tcp, tls, interval, timeout, unhealthyThreshold, healthyThreshold } = given
  return {
    probe: http
      ? { kind: 'http', path: http.path, statuses: http.expectedStatuses ?? null }
      : tls || tcp
        ? { kind: tls ? 'tls' : 'tcp' }
        : ownProbe(upstream),
    port: (http ?? tcp ?? tls)?.port ?? null,
    intervalMs: durationMs(interval)!,
    timeoutMs: durationMs(timeout)!,
    unhealthyThreshold,
    healthyThreshold,
  }
}

/** A check of the protocol's own: the schema allows it for PostgreSQL, which always has a credential, and for Redis. */
function ownProbe({ auth, sentinel, endpoints = [] }: DefaultedUpstream): HealthCheckConfig['probe'] {
  if (auth?.postgres) return { kind: 'postgres' }
  return { kind: 'redis', role: sentinel?.role ?? (hasOrder(endpoints) ? 'Master' : null) }
}

function hasOrder(endpoints: NonNullable<DefaultedUpstream['endpoints']>): boolean {
  return new Set(endpoints.map(({ priority }) => priority)).size > 1
}

/** Of servers with an order in which they are used, the later ones are standbys until they are promoted. */
function role({ role: given, auth, endpoints = [] }: DefaultedUpstream): RoleConfig {
  if (given !== undefined || !auth?.postgres) return given ?? 'Any'
  return hasOrder(endpoints) ? 'Primary' : 'Any'
}

function outlierDetection(given: NonNullable<DefaultedUpstream['outlierDetection']>): OutlierConfig {
  const ejectionMs = durationMs(given.ejectionTime)!
  return {
    consecutiveFailures: given.consecutiveFailures,
    ejectionMs,
    maxEjectionMs: Math.max(MAX_EJECTION_MS, ejectionMs),
    maxEjected: percentRatio(given.maxEjected)!,
  }
}

function limits(given: DefaultedUpstream['limits']): LimitsConfig {
  return {
    maxConnections: given.maxConnections,
    maxPendingRequests: given.maxPendingRequests,
    // Of connections too: one that an endpoint does not accept goes on to another.
    maxConcurrentRetries: given.maxConcurrentRetries ?? CONCURRENT_RETRIES,
    ...(given.maxConnectionAge !== undefined && { maxConnectionAgeMs: durationMs(given.maxConnectionAge)! || null }),
    ...(given.maxRequestsPerConnection !== undefined && { maxConnectionRequests: given.maxRequestsPerConnection }),
  }
}

const secret = ({ name, key }: { name: string; key: string }): DataRef => ({ kind: 'secret', name, key })
const configMap = ({ name, key }: { name: string; key: string }): DataRef => ({ kind: 'configMap', name, key })
