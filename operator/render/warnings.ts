/** What a valid spec says that does nothing, or may not do what was meant. */
import { isIP } from 'node:net'
import { durationMs } from '../../common/duration.ts'
import { HostList } from '../../common/host-list.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'
import { retryConditions } from '../api/policies.ts'
import { REQUEST_MS } from './policies.ts'
import type { Problem } from './problems.ts'

/** The warnings of a checked spec, in the order of its fields. */
export function warnings(spec: DefaultedSpec): Problem[] {
  return [
    ...unusedUpstreams(spec),
    ...idleRoutes(spec),
    ...plainHttps(spec),
    ...plainTokens(spec),
    ...srvNames(spec),
    ...sentinelNames(spec),
    ...unverified(spec),
    ...tryTimeouts(spec),
    ...lateHedges(spec),
    ...deniedHosts(spec),
    ...sample(spec),
  ]
}

function warning(field: string, message: string): Problem {
  return { severity: 'Warning', condition: 'Accepted', reason: 'AcceptedWithWarnings', field, message }
}

/** An upstream that nothing leads to. */
function unusedUpstreams({ upstreams, routes = [] }: DefaultedSpec): Problem[] {
  const last = routes.findIndex(matchesEverything)
  const reachable = last < 0 ? routes : routes.slice(0, last + 1)
  const used = new Set(
    reachable.flatMap(({ to, mirror }) => [
      ...to.filter(({ weight }) => weight > 0).map((each) => each.upstream),
      ...(mirror ? [mirror.upstream] : []),
    ]),
  )
  const first = upstreams[0]!.name
  if (last < 0) used.add(first)
  return upstreams.flatMap((each, index) => {
    if (used.has(each.name)) return []
    const message =
      routes.length === 0
        ? `upstream '${each.name}' is used by no route: all traffic goes to '${first}', remove it or put it first`
        : `upstream '${each.name}' is used by no route: remove it, or name it in a route with a weight above 0`
    return [warning(`spec.upstreams[${index}]`, message)]
  })
}

/** Routes that no request reaches, and stickiness that has nothing to choose. */
function idleRoutes({ routes = [] }: DefaultedSpec): Problem[] {
  const last = routes.findIndex(matchesEverything)
  return routes.flatMap(({ stickyOn, to }, index) => {
    const field = `spec.routes[${index}]`
    if (last >= 0 && index > last) {
      return [warning(field, `is never taken: routes[${last}] matches every request, put it before that one`)]
    }
    if (!stickyOn || to.filter(({ weight }) => weight > 0).length > 1) return []
    return [warning(`${field}.stickyOn`, 'does nothing with one upstream: remove it or add another upstream')]
  })
}

function matchesEverything({ match }: NonNullable<DefaultedSpec['routes']>[number]): boolean {
  const { methods, path, headers = [], query = [], cookies = [] } = match
  return (
    methods === undefined &&
    (path === undefined || path.prefix === '/') &&
    [...headers, ...query, ...cookies].length === 0
  )
}

/** HTTP in plain text to the port of HTTPS gets an error from every server there is. */
function plainHttps({ protocol, upstreams }: DefaultedSpec): Problem[] {
  if (protocol !== 'HTTP') return []
  return upstreams.flatMap((each, index) => {
    const ports = [each.dns?.port, ...(each.endpoints ?? []).map((endpoint) => endpoint.port)]
    if (each.tls || !ports.includes(443)) return []
    const message = `upstream '${each.name}' is called in plain text on port 443: add tls: {} for HTTPS`
    return [warning(`spec.upstreams[${index}]`, message)]
  })
}

/** The client secret and the token go over the network as they are. */
function plainTokens({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.flatMap(({ auth }, index) => {
    const url = auth?.oauth2ClientCredentials?.tokenUrl
    if (url === undefined || url.startsWith('https://')) return []
    const field = `spec.upstreams[${index}].auth.oauth2ClientCredentials.tokenUrl`
    return [warning(field, 'sends the client secret in plain text: use https')]
  })
}

/** DNS is not signed, so whoever forges an SRV record would choose the name that the certificate must have (RFC 6125 section 6.2.1). */
function srvNames({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.flatMap((each, index) => {
    if (!each.srv || !each.tls || each.tls.serverName !== undefined) return []
    const message = `the certificate of '${each.name}' is verified for whatever target DNS names: set serverName to the name that all targets have in theirs`
    return [warning(`spec.upstreams[${index}].tls`, message)]
  })
}

/** Sentinels announce addresses as a rule, which few certificates are for. */
function sentinelNames({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.flatMap((each, index) => {
    if (!each.sentinel || !each.tls || each.tls.serverName !== undefined || each.tls.insecureSkipVerify) return []
    const message = `the certificate of '${each.name}' must be for the address or name that the Sentinels announce: set serverName to the name that all its servers have in theirs`
    return [warning(`spec.upstreams[${index}].tls`, message)]
  })
}

/** Whoever reads the status must know. */
function unverified({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.flatMap(({ name, tls, sentinel }, index) => {
    return [
      ['tls', name, tls?.insecureSkipVerify?.reason],
      ['sentinel.tls', `the Sentinels of ${name}`, sentinel?.tls?.insecureSkipVerify?.reason],
    ].flatMap(([field, who, reason]) => {
      if (reason === undefined) return []
      const message = `nobody verifies that '${who}' is what it says it is ('${reason}'): set ca and remove this`
      return [warning(`spec.upstreams[${index}].${field}.insecureSkipVerify`, message)]
    })
  })
}

/** A try that may last as long as the whole request leaves no time for another one. */
function tryTimeouts(spec: DefaultedSpec): Problem[] {
  const routes = (spec.routes ?? []).flatMap(({ retry, timeouts: own }, index) => {
    return tryTimeout(`spec.routes[${index}].retry`, retry, own?.request ?? spec.timeouts.request)
  })
  return [...tryTimeout('spec.retry', spec.retry, spec.timeouts.request), ...routes]
}

function tryTimeout(
  field: string,
  retry: Omit<NonNullable<DefaultedSpec['retry']>, 'budget'> | undefined,
  request: string | undefined,
): Problem[] {
  if (!retry || retry.maxRetries === 0) return []
  if (retry.perTryTimeout === undefined) {
    if (!retryConditions(retry).includes('Timeout')) return []
    return [warning(`${field}.on`, 'Timeout does nothing without perTryTimeout: set it, or remove Timeout')]
  }
  const requestMs = request === undefined ? REQUEST_MS : durationMs(request)!
  if (requestMs === 0 || durationMs(retry.perTryTimeout)! < requestMs) return []
  const message = `'${retry.perTryTimeout}' is not shorter than timeouts.request '${request ?? '15s'}', so a try that takes too long is never followed by another: make it shorter`
  return [warning(`${field}.perTryTimeout`, message)]
}

/** A second try that would begin when the first is given up never begins. */
function lateHedges({ retry, routes = [], timeouts: all }: DefaultedSpec): Problem[] {
  const late = (
    field: string,
    policy: typeof retry | NonNullable<typeof routes>[number]['retry'],
    request?: string,
  ) => {
    if (!policy?.hedge) return []
    const { after } = policy.hedge
    const limits = [policy.perTryTimeout, request].flatMap((each) => (each ? durationMs(each) || [] : []))
    if (durationMs(after)! < Math.min(request === undefined ? REQUEST_MS : Number.POSITIVE_INFINITY, ...limits))
      return []
    const message = `'${after}' is not shorter than the time that a try may take, so there is never a second one: make it shorter`
    return [warning(`${field}.hedge.after`, message)]
  }
  return [
    ...late('spec.retry', retry, all.request),
    ...routes.flatMap((route, index) => {
      return late(`spec.routes[${index}].retry`, route.retry, route.timeouts?.request ?? all.request)
    }),
  ]
}

/** Hosts of the spec itself that its own egress refuses. A name may still be allowed by the addresses that it has. */
function deniedHosts({ egress, upstreams, tracing }: DefaultedSpec): Problem[] {
  if (!egress) return []
  const list = new HostList(egress.allow)
  const denied = (field: string, host: string, port: number): Problem[] => {
    if (list.allows(host, port) || (list.hasRanges && isIP(host) === 0)) return []
    return [warning(field, `'${host}', port ${port}, is not in egress.allow, so it is never dialled: add it there`)]
  }
  const deniedUrl = (field: string, text: string): Problem[] => {
    const { hostname, port, protocol } = new URL(text)
    return denied(field, hostname.replace(/^\[(.*)\]$/, '$1'), Number(port || (protocol === 'https:' ? 443 : 80)))
  }
  const collector = tracing ? deniedUrl('spec.tracing.otlpEndpoint', tracing.otlpEndpoint) : []
  const found = upstreams.flatMap(({ endpoints = [], dns, sentinel, auth }, index) => {
    const path = `spec.upstreams[${index}]`
    const url = auth?.oauth2ClientCredentials?.tokenUrl
    return [
      ...endpoints.flatMap(({ host, port }, at) => denied(`${path}.endpoints[${at}]`, host, port)),
      ...(dns ? denied(`${path}.dns`, dns.hostname, dns.port) : []),
      ...(sentinel?.sentinels ?? []).flatMap(({ host, port }, at) =>
        denied(`${path}.sentinel.sentinels[${at}]`, host, port),
      ),
      ...(url === undefined ? [] : deniedUrl(`${path}.auth.oauth2ClientCredentials.tokenUrl`, url)),
    ]
  })
  return [...found, ...collector]
}

/** Only failures are sampled against. */
function sample({ accessLog: { mode, sample } }: DefaultedSpec): Problem[] {
  if (sample === undefined || mode === 'Errors') return []
  return [warning('spec.accessLog.sample', `sample does nothing with mode ${mode}: remove it or use mode Errors`)]
}
