/** The telemetry port: what kubelet, Prometheus and the operator ask, on all addresses, read-only and without a secret. */
import type { Configz } from '../../common/configz.ts'
import { EXPOSITION_TYPES, type ExpositionFormat, formatFor } from './exposition.ts'
import { type Answer, HttpServer } from './http-server.ts'

/** What a request to /readyz asks for. */
export interface ReadyQuestion {
  /** Only whether it listens, whatever the readiness of the pod is. */
  readonly isStartup: boolean
  /** And whether these are well, whatever the readiness of the pod is: names of upstreams, of Ambassadors, or `AMBASSADOR/UPSTREAM`. */
  readonly upstreams: readonly string[]
}

/** What the telemetry port shows. Each is asked anew for each request. */
export interface TelemetryView {
  /** Reasons why the sidecar is not ready; empty when it is. */
  unready(question: ReadyQuestion): readonly string[]
  /** Of these names those that no upstream has, as a sentence with the ones that there are; null when each has one. */
  unknownUpstreams(names: readonly string[]): string | null
  configz(): Configz
  metrics(format: ExpositionFormat): string
}

const OK: Answer = { status: 200, body: 'ok\n' }

/** Makes the server; listen(port, 'any') starts it. */
export function telemetryServer(view: TelemetryView): HttpServer {
  return new HttpServer({
    routes: {
      // That it is answered at all is the news: the event loop turns.
      '/livez': { GET: () => OK },
      '/readyz': {
        // `?startup` is the startup probe, which asks only whether it listens: an application starts while its dependency is down.
        // `?upstream=NAME` is `ambassador wait`.
        GET: (_body, query) => {
          const fields = new URLSearchParams(query)
          const question = { isStartup: fields.has('startup'), upstreams: fields.getAll('upstream') }
          const reasons = view.unready(question)
          if (reasons.length > 0) return { status: 503, body: `${reasons.join('\n')}\n` }
          const unknown = view.unknownUpstreams(question.upstreams)
          return unknown === null ? OK : { status: 404, body: `${unknown}\n` }
        },
      },
      '/configz': {
        GET: () => ({ status: 200, type: 'application/json', body: `${JSON.stringify(view.configz(), null, 2)}\n` }),
      },
      '/metrics': {
        GET: (_body, _query, accept) => {
          const format = formatFor(accept)
          const headers = { vary: 'accept' }
          return { status: 200, type: EXPOSITION_TYPES[format], headers, body: view.metrics(format) }
        },
      },
    },
  })
}
