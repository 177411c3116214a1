/** Checks the tracing of a config that somebody wrote, so that putting it in force cannot fail. */
import type { ProxyConfig } from '../../common/proxy-config.ts'

/** @throws {Error} that names the field, the value and the remedy */
export function checkTracing({ tracing }: ProxyConfig): void {
  if (tracing === undefined) return
  const { endpoint } = tracing
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null
  const isHttp = url !== null && (url.protocol === 'http:' || url.protocol === 'https:')
  if (isHttp && url.username === '' && url.password === '' && url.search === '' && url.hash === '') return
  throw new Error(`config: tracing.endpoint: '${endpoint}' is not the URL of a collector, use http://host:port`)
}
