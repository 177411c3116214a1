/** `ambassador wait`: waits until a sidecar on this machine, or in this pod, listens, and its upstreams can be reached. */
import { request } from 'node:http'
import { connect, type NetConnectOpts } from 'node:net'
import { parseArgs } from 'node:util'
import { durationMs, notADuration } from '../../common/duration.ts'
import { ADMIN_PORT, Env, TELEMETRY_PORT } from '../../common/names.ts'
import { Exit, UsageError } from '../exit.ts'
import { portOption } from '../port-option.ts'

export const summary = 'wait until a sidecar listens, and upstreams can be reached'

export const usage = `
Usage: ambassador wait [--timeout DURATION] [--upstream NAME ...] [--telemetry-port N] [--admin-port N] [--quiet]

Waits until every port for the application is bound. Run it where the sidecar's loopback is: in its container, in another
container of the pod, or of the same network in Compose.

  --timeout DURATION    how long at most (default 60s; 0s looks once)
  --upstream NAME       also until this upstream is well: its endpoints are known, its files and credential are there, its
                        circuit is closed, its checks pass, and an endpoint takes a connection. An upstream, an Ambassador
                        (all of its upstreams), or AMBASSADOR/UPSTREAM; again for more
  --telemetry-port N    default ${TELEMETRY_PORT}, or the variable ${Env.telemetryPort}
  --admin-port N        default ${ADMIN_PORT}, or the variable ${Env.adminPort}
  -q, --quiet           print nothing when it is ready

In Compose, an application that must not start before the sidecar listens:
  ambassador: { healthcheck: { test: [CMD, ambassador, wait, --timeout, 0s], interval: 2s, retries: 30 } }
  app: { network_mode: "service:ambassador", depends_on: { ambassador: { condition: service_healthy } } }

Exit code: 0 ready, 1 not ready in time (the reasons are printed) or no such upstream, 2 wrong usage.
`

/** Between two looks, in milliseconds. */
const LOOK_MS = 200
/** Endpoints that are dialled at a time. */
const DIALS = 250
/** Endpoints that a sentence names. */
const MAX_SHOWN = 10
/** A sidecar that is there answers in far less; so does an endpoint that is up. */
const ANSWER_MS = 2000

export async function run(args: string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      timeout: { type: 'string', default: '60s' },
      upstream: { type: 'string', multiple: true, default: [] },
      'telemetry-port': { type: 'string' },
      'admin-port': { type: 'string' },
      quiet: { type: 'boolean', short: 'q' },
    },
  })
  const timeoutMs = durationMs(values.timeout)
  if (timeoutMs === undefined) throw new UsageError(`--timeout: ${notADuration(values.timeout)}`)
  const ports = {
    telemetry: portOption('--telemetry-port', values['telemetry-port'] ?? env[Env.telemetryPort], TELEMETRY_PORT),
    admin: portOption('--admin-port', values['admin-port'] ?? env[Env.adminPort], ADMIN_PORT),
  }
  const startedAt = performance.now()
  // One look is taken whatever it takes.
  const endsAt = timeoutMs === 0 ? Number.POSITIVE_INFINITY : startedAt + timeoutMs
  for (;;) {
    const look = await lookAt(ports, values.upstream, endsAt)
    if (look.kind === 'ready') {
      if (!values.quiet) console.log('ready')
      return Exit.ok
    }
    const isOver = look.kind === 'hopeless' || performance.now() - startedAt + LOOK_MS > timeoutMs
    if (isOver) {
      console.error(`ambassador wait: ${look.why}`)
      return Exit.problem
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

type Look =
  | { readonly kind: 'ready' }
  /** `hopeless`: waiting does not help. */
  | { readonly kind: 'waiting' | 'hopeless'; readonly why: string }

/** @param endsAt when it has to end, in monotonic milliseconds */
async function lookAt(
  ports: { telemetry: number; admin: number },
  upstreams: readonly string[],
  endsAt: number,
): Promise<Look> {
  const query = ['startup', ...upstreams.map((name) => `upstream=${encodeURIComponent(name)}`)].join('&')
  const answer = await get(ports.telemetry, `/readyz?${query}`)
  if (typeof answer === 'string') return { kind: 'waiting', why: answer }
  const why = answer.body.trim().replaceAll('\n', '; ')
  if (answer.status === 404 && why.startsWith('there is no upstream ')) return { kind: 'hopeless', why }
  if (answer.status === 503) return { kind: 'waiting', why }
  if (answer.status !== 200) return { kind: 'waiting', why: foreign(ports.telemetry) }
  return upstreams.length === 0 ? { kind: 'ready' } : await dialAll(ports.admin, upstreams, endsAt)
}

/** The part of /upstreams that is read here. */
interface Report {
  readonly ambassadors: readonly {
    readonly name: string
    readonly upstreams: readonly { readonly name: string; readonly endpoints: readonly { readonly name: string }[] }[]
  }[]
}

/** What the sidecar knows of an upstream that nothing was sent to yet is that nothing failed. So an endpoint of each is connected to. */
async function dialAll(adminPort: number, names: readonly string[], endsAt: number): Promise<Look> {
  const answer = await get(adminPort, '/upstreams')
  if (typeof answer === 'string') return { kind: 'waiting', why: answer }
  const ambassadors = answer.status === 200 ? reportOf(answer.body) : null
  if (ambassadors === null) return { kind: 'waiting', why: foreign(adminPort) }
  for (const { name: ambassador, upstreams } of ambassadors) {
    for (const { name, endpoints } of upstreams) {
      if (!names.some((each) => [name, ambassador, `${ambassador}/${name}`].includes(each))) continue
      // Endpoints that come with the requests cannot be waited for.
      if (endpoints.length === 0) continue
      const failures = await dialUntilOne([...new Set(endpoints.map((each) => each.name))], endsAt)
      if (failures !== null) {
        return {
          kind: 'waiting',
          why: `ambassador '${ambassador}': upstream '${name}': no endpoint takes a connection: ${firstOf(failures)}`,
        }
      }
    }
  }
  return { kind: 'ready' }
}

/** Null as soon as one accepts, else why each does not. They are dialled side by side: of many, most may be silent. */
async function dialUntilOne(endpoints: readonly string[], endsAt: number): Promise<readonly string[] | null> {
  const failures: string[] = []
  for (let at = 0; at < endpoints.length; at += DIALS) {
    const leftMs = endsAt - performance.now()
    if (at > 0 && leftMs <= 0) return [...failures, `${endpoints.length - at} more (not dialled, the time was up)`]
    const answerMs = Math.min(ANSWER_MS, Math.max(LOOK_MS, leftMs))
    const dials = endpoints.slice(at, at + DIALS).map(async (name) => {
      const failure = await dial(name, answerMs)
      if (failure === null) return
      failures.push(`${name} (${failure})`)
      throw new Error(failure)
    })
    const isOne = await Promise.any(dials).then(
      () => true,
      () => false,
    )
    if (isOne) return null
  }
  return failures
}

function firstOf(failures: readonly string[]): string {
  const shown = failures.slice(0, MAX_SHOWN).join(', ')
  return failures.length > MAX_SHOWN ? `${shown} and ${failures.length - MAX_SHOWN} more` : shown
}

/** Null when it accepts, else why not. */
function dial(name: string, answerMs: number): Promise<string | null> {
  const [, host = '', port] = /^\[?(.*?)\]?:(\d+)$/.exec(name) ?? []
  const options: NetConnectOpts = name.startsWith('/') ? { path: name } : { host, port: Number(port) }
  return new Promise((resolve) => {
    const socket = connect(options)
    const end = (failure: string | null) => {
      resolve(failure)
      socket.destroy()
    }
    socket.setTimeout(answerMs, () => end('no answer'))
    socket.once('connect', () => end(null))
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
  })
}

/** The answer of a port of the sidecar, or why there is none. */
function get(port: number, path: string): Promise<{ readonly status: number; readonly body: string } | string> {
  return new Promise((resolve) => {
    const outgoing = request({ host: '127.0.0.1', port, path, agent: false, timeout: ANSWER_MS }, (answer) => {
      let body = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => (body += chunk))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body }))
      answer.on('error', () => resolve(nobody(port)))
    })
    outgoing.on('timeout', () => outgoing.destroy())
    outgoing.on('error', () => resolve(nobody(port)))
    outgoing.end()
  })
}

/** Null: it is not what a sidecar says. */
function reportOf(body: string): Report['ambassadors'] | null {
  try {
    const { ambassadors } = JSON.parse(body) as Partial<Report>
    return Array.isArray(ambassadors) ? ambassadors : null
  } catch {
    return null
  }
}

function foreign(port: number): string {
  return `what answers on 127.0.0.1:${port} is no sidecar, or an older one: name the ports of the sidecar`
}

function nobody(port: number): string {
  return `no sidecar answers on 127.0.0.1:${port}, start it or name its port`
}
