/** The telemetry port: what kubelet, Prometheus and the operator ask, on all addresses, read-only and without a secret. */
import type { Configz } from '../../common/configz.ts'
import { EXPOSITION_TYPE } from './exposition.ts'
import { type Answer, HttpServer } from './http-server.ts'

/** What the telemetry port shows. Each is asked anew for each request. */
export interface TelemetryView {
  /** Reasons why the sidecar is not ready (with `isStartup`: why it has not started); empty when it is. */
  unready(isStartup: boolean): readonly string[]
  configz(): Configz
  metrics(): string
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
        GET: (_body, query) => {
          const reasons = view.unready(query === 'startup')
          return reasons.length === 0 ? OK : { status: 503, body: `${reasons.join('\n')}\n` }
        },
      },
      '/configz': {
        GET: () => ({ status: 200, type: 'application/json', body: `${JSON.stringify(view.configz(), null, 2)}\n` }),
      },
      '/metrics': { GET: () => ({ status: 200, type: EXPOSITION_TYPE, body: view.metrics() }) },
    },
  })
}
