/** The admin port: a page for people and the verbs of the lifecycle, on loopback and for programs of this pod alone. */
import { LOG_LEVELS } from '../../common/names.ts'
import { adminPage } from './admin-page.ts'
import { type Answer, type Asked, HttpServer } from './http-server.ts'
import type { LogLevel } from './log.ts'
import type { UpstreamsReport } from './upstreams.ts'

/** Circuits that a person wants to hold as they are, or to let go of. */
export interface CircuitWish {
  readonly to: (typeof CIRCUIT_WISHES)[number]
  /** Null: whichever Ambassador has the upstream. */
  readonly ambassador: string | null
  readonly upstream: string
  /** `ip:port`; null: all of the upstream. */
  readonly endpoint: string | null
}

const CIRCUIT_WISHES = ['open', 'closed', 'auto'] as const

export interface AdminControl {
  /** Returns the number of circuits that were set, or why none was. */
  setCircuit(wish: CircuitWish): number | string
  upstreams(): UpstreamsReport
  /** Stops taking connections and ends what is idle; the process stays and answers. */
  drain(): void
  /** Drains, and then ends the process with code 0. */
  quit(): void
  setLogLevel(level: LogLevel): void
}

/** Makes the server; listen(port, 'loopback') starts it. */
export function adminServer(control: AdminControl): HttpServer {
  return new HttpServer({
    guard,
    routes: {
      '/': {
        GET: () => {
          const { html, policy } = adminPage()
          const headers = { 'content-security-policy': policy }
          return { status: 200, type: 'text/html; charset=utf-8', headers, body: html }
        },
      },
      '/upstreams': {
        GET: () => ({
          status: 200,
          type: 'application/json',
          body: `${JSON.stringify(control.upstreams(), null, 2)}\n`,
        }),
      },
      '/circuit': {
        PUT: (body, query) => {
          const to = CIRCUIT_WISHES.find((each) => each === body.trim())
          const asked = new URLSearchParams(query)
          const upstream = asked.get('upstream')
          if (to === undefined) {
            return {
              status: 400,
              body: `'${body.trim().slice(0, 40)}' is not a state, use ${CIRCUIT_WISHES.join(', ')}\n`,
            }
          }
          if (upstream === null) return { status: 400, body: 'no upstream is named, use /circuit?upstream=NAME\n' }
          const set = control.setCircuit({
            to,
            upstream,
            ambassador: asked.get('ambassador'),
            endpoint: asked.get('endpoint'),
          })
          if (typeof set === 'string') return { status: 404, body: `${set}\n` }
          return { status: 200, body: `${to}: ${set} ${set === 1 ? 'endpoint' : 'endpoints'}\n` }
        },
      },
      '/drain': {
        POST: () => {
          control.drain()
          return { status: 202, body: 'draining: no new connections, what is in flight is finished\n' }
        },
      },
      '/quitquitquit': {
        POST: () => {
          control.quit()
          return { status: 202, body: 'draining, and then the process ends\n' }
        },
      },
      '/loglevel': {
        PUT: (body) => {
          const level = LOG_LEVELS.find((each) => each === body.trim())
          if (level === undefined) {
            return {
              status: 400,
              body: `'${body.trim().slice(0, 40)}' is not a log level, use ${LOG_LEVELS.join(', ')}\n`,
            }
          }
          control.setLogLevel(level)
          return { status: 200, body: `${level}\n` }
        },
      },
    },
  })
}

const LOOPBACK_HOST = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i

/**
 * Loopback is no protection against a browser on the same machine (a developer with `kubectl port-forward` or `ambassador run`):
 * a page anywhere can have its own name resolve to 127.0.0.1 (then Host names it), or send a form here (then Origin names it).
 */
function guard(asked: Asked): Answer | null {
  const host = asked.field('host')
  const origin = asked.field('origin')
  if (host === undefined || !LOOPBACK_HOST.test(host)) {
    return { status: 403, body: 'the Host of an admin request is localhost, 127.0.0.1 or [::1]\n' }
  }
  if (origin !== undefined && origin !== `http://${host}`) {
    return { status: 403, body: 'admin requests of other origins are refused\n' }
  }
  const site = asked.field('sec-fetch-site')
  if (asked.method !== 'GET' && asked.method !== 'HEAD' && site !== undefined && site !== 'same-origin') {
    return { status: 403, body: 'admin requests of other sites are refused\n' }
  }
  return null
}
