/** What a valid spec says that does nothing, or may not do what was meant. */
import { durationMs } from '../../common/duration.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'
import { retryConditions } from '../api/policies.ts'
import { timeouts } from './policies.ts'
import type { Problem } from './problems.ts'

/** The warnings of a checked spec, in the order of its fields. */
export function warnings(spec: DefaultedSpec): Problem[] {
  return [...unusedUpstreams(spec), ...plainHttps(spec), ...srvNames(spec), ...tryTimeouts(spec), ...sample(spec)]
}

function warning(field: string, message: string): Problem {
  return { severity: 'Warning', condition: 'Accepted', reason: 'AcceptedWithWarnings', field, message }
}

/** Without routes all traffic goes to the first upstream. */
function unusedUpstreams({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.slice(1).map((each, index) => {
    const message = `upstream '${each.name}' is used by no route: all traffic goes to '${upstreams[0]!.name}', remove it or put it first`
    return warning(`spec.upstreams[${index + 1}]`, message)
  })
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

/** DNS is not signed, so whoever forges an SRV record would choose the name that the certificate must have (RFC 6125 section 6.2.1). */
function srvNames({ upstreams }: DefaultedSpec): Problem[] {
  return upstreams.flatMap((each, index) => {
    if (!each.srv || !each.tls || each.tls.serverName !== undefined) return []
    const message = `the certificate of '${each.name}' is verified for whatever target DNS names: set serverName to the name that all targets have in theirs`
    return [warning(`spec.upstreams[${index}].tls`, message)]
  })
}

/** A try that may last as long as the whole request leaves no time for another one. */
function tryTimeouts(spec: DefaultedSpec): Problem[] {
  const { retry } = spec
  if (!retry || retry.maxRetries === 0) return []
  if (retry.perTryTimeout === undefined) {
    if (!retryConditions(retry).includes('Timeout')) return []
    return [warning('spec.retry.on', 'Timeout does nothing without perTryTimeout: set it, or remove Timeout')]
  }
  const { requestMs } = timeouts(spec)
  if (requestMs === null || durationMs(retry.perTryTimeout)! < requestMs) return []
  const message = `'${retry.perTryTimeout}' is not shorter than timeouts.request '${spec.timeouts.request ?? '15s'}', so a try that takes too long is never followed by another: make it shorter`
  return [warning('spec.retry.perTryTimeout', message)]
}

/** Only failures are sampled against. */
function sample({ accessLog: { mode, sample } }: DefaultedSpec): Problem[] {
  if (sample === undefined || mode === 'Errors') return []
  return [warning('spec.accessLog.sample', `sample does nothing with mode ${mode}: remove it or use mode Errors`)]
}
