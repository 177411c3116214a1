/** The translation of an Ambassador into what its sidecars obey: pure and total. */
import { configHash, endpointsHash, type ProxyConfig, parseProxyConfig } from '../../common/proxy-config.ts'
import type { Ambassador, DefaultedSpec } from '../api/ambassador.ts'
import { checkSpec } from '../api/check.ts'
import { cluster } from './clusters.ts'
import { listener } from './listeners.ts'
import { accessLog, rateLimit, retry, timeouts, tracing } from './policies.ts'
import { postgres } from './postgres.ts'
import { type Problem, problemText } from './problems.ts'
import { routes } from './routes.ts'
import { NO_SERVICES, type ServiceLookup } from './services.ts'
import { warnings } from './warnings.ts'

/** All that a rendering may depend on. */
export interface World {
  readonly ambassador: Ambassador
  /** What is known of Services. Default: nothing, so that a Service has no endpoints yet. */
  readonly services?: ServiceLookup
  /** Sidecars that serve it. Default: 1. */
  readonly sidecars?: number
}

export interface Rendered {
  /** Null when the spec cannot be served; then a problem of severity Error says why, and sidecars keep the last good one. */
  readonly config: ProxyConfig | null
  readonly problems: readonly Problem[]
}

/**
 * Renders an Ambassador. Never throws: objects that were stored before a rule existed, or by somebody without the CRD's checks,
 * give problems. The same world always gives the same bytes.
 */
export function render(world: World): Rendered {
  const checked = checkSpec(world.ambassador?.spec)
  if (!checked.ok) {
    const problems = checked.issues.map((issue): Problem => {
      return { severity: 'Error', condition: 'Accepted', reason: 'Invalid', ...issue }
    })
    return { config: null, problems }
  }
  return { config: configOf(world, checked.spec), problems: warnings(checked.spec) }
}

function configOf({ ambassador, services = NO_SERVICES, sidecars = 1 }: World, spec: DefaultedSpec): ProxyConfig {
  const { namespace = 'default', name, generation = 0 } = ambassador.metadata
  const context = { namespace, services }
  const ofPostgres = postgres(spec)
  const content: Omit<ProxyConfig, 'hash'> = {
    version: 1,
    ambassador: { namespace, name, generation },
    protocol: spec.protocol,
    listener: listener(spec),
    clusters: spec.upstreams.map((each) => cluster(each, context)),
    routes: routes(spec),
    retry: retry(spec),
    timeouts: timeouts(spec),
    rateLimit: rateLimit(spec),
    accessLog: accessLog(spec),
    ...(spec.egress && { egress: { allow: spec.egress.allow } }),
    // Left out where there is none: then an upgrade of the operator changes no config.
    ...(spec.tracing && { tracing: tracing(spec) }),
    ...(ofPostgres && { postgres: ofPostgres }),
    ...(hasSharedLimit(spec) && { fleet: { sidecars } }),
  }
  // Parsed before anybody writes it, so that what the proxy refuses never leaves the operator.
  const ofEndpoints = endpointsHash(content)
  return parseProxyConfig({
    ...content,
    hash: configHash(content),
    ...(ofEndpoints !== undefined && { endpointsHash: ofEndpoints }),
  })
}

/** Whether a rate limit is of all sidecars together. */
function hasSharedLimit({ rateLimit: all, routes: each = [] }: DefaultedSpec): boolean {
  return [all, ...each.map((route) => route.rateLimit)].some((limit) => limit?.perFleet)
}

/** The message of the Accepted condition for a rendering, with its reason. */
export function acceptance(problems: readonly Problem[]): {
  status: 'True' | 'False'
  reason: 'Accepted' | 'AcceptedWithWarnings' | 'Invalid'
  message: string
} {
  const errors = problems.filter((each) => each.severity === 'Error')
  const shown = errors.length > 0 ? errors : problems
  const message = shown.map(problemText).join('; ')
  if (errors.length > 0) return { status: 'False', reason: 'Invalid', message }
  if (shown.length > 0) return { status: 'True', reason: 'AcceptedWithWarnings', message }
  return { status: 'True', reason: 'Accepted', message: 'the spec is valid' }
}
