/** Requests to an API server: JSON over HTTP/1.1 with kept-alive connections, time-outs and typed errors. Raw paths, raw objects. */
import http from 'node:http'
import https from 'node:https'
import { type Clock, sleep, systemClock } from './clock.ts'
import type { Connection, Identity } from './connection.ts'
import { ApiError } from './errors.ts'
import type { KubeStatus } from './objects.ts'

export interface KubeRequest {
  /** Default GET. */
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** `/api/v1/namespaces/shop/pods`; names in it are encoded by the caller. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  readonly body?: unknown
  /** Of the body. Default application/json. */
  readonly contentType?: string
  /** Default application/json. */
  readonly accept?: string
  /** For the whole answer; for open(): until the head of the answer. Default 10 s. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** What the rest of the operator sees of an API server. */
export interface KubeClient {
  /** Sends and reads one JSON document. A 429 is sent again after its Retry-After, within the time-out. @throws {ApiError} */
  request<T>(request: KubeRequest): Promise<T>
  /** Starts an answer that goes on: a watch. The caller destroys the stream. @throws {ApiError} when the head is not 200 */
  open(request: KubeRequest): Promise<http.IncomingMessage>
  /** Ends kept connections. */
  close(): void
}

export interface ClientOptions {
  readonly userAgent?: string
  /** Default 10 s. */
  readonly timeoutMs?: number
  readonly clock?: Clock
  /** Told each answer: for metrics. */
  readonly observe?: (method: string, status: number, durationMs: number) => void
}

/** An answer with 429 within a request is tried again this often. It was not processed, so that is always safe. */
const TRIES_429 = 3

/** A dead peer (half-open connection) is noticed by the kernel: first probe after this time. */
const KEEP_ALIVE_PROBE_MS = 15_000

export function createClient(connection: Connection, options: ClientOptions = {}): KubeClient {
  return new HttpClient(connection, options)
}

class HttpClient implements KubeClient {
  readonly #connection: Connection
  readonly #options: ClientOptions
  readonly #clock: Clock
  #identity: Identity | undefined
  #agent: http.Agent | undefined
  #streamAgent: http.Agent | undefined

  constructor(connection: Connection, options: ClientOptions) {
    this.#connection = connection
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  async request<T>(request: KubeRequest): Promise<T> {
    const clock = this.#clock
    const deadline = clock.now() + this.#timeout(request)
    let unauthorized = false
    let reset = false
    for (let tries = 1; ; tries++) {
      try {
        return await this.#once<T>(request, deadline - clock.now(), unauthorized)
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        if (error.status === 401 && !unauthorized) {
          unauthorized = true // the token may have been rotated under us
          continue
        }
        if (error.reason === 'Stale' && !reset) {
          reset = true // the server closed a kept connection just as we used it: nothing was answered
          continue
        }
        const waitMs = Math.max(error.retryAfterMs, 100)
        if (error.status !== 429 || tries >= TRIES_429 || clock.now() + waitMs >= deadline) throw error
        if (!(await sleep(clock, waitMs, request.signal))) throw aborted(request)
      }
    }
  }

  async #once<T>(request: KubeRequest, timeoutMs: number, fresh: boolean): Promise<T> {
    const started = this.#clock.now()
    const { message, finish } = await this.#send(request, timeoutMs, fresh, false)
    try {
      const text = await readText(message)
      this.#options.observe?.(request.method ?? 'GET', message.statusCode ?? 0, this.#clock.now() - started)
      if (!isSuccess(message)) throw failure(request, message, text)
      try {
        return JSON.parse(text) as T
      } catch (cause) {
        throw new ApiError(`${describe(request)}: the answer is not JSON`, {
          status: message.statusCode ?? 0,
          reason: 'Malformed',
          cause,
        })
      }
    } catch (error) {
      throw error instanceof ApiError ? error : broken(request, error, finish.why())
    } finally {
      finish.done()
    }
  }

  async open(request: KubeRequest): Promise<http.IncomingMessage> {
    const { message, finish } = await this.#send(request, this.#timeout(request), false, true)
    if (!isSuccess(message)) {
      try {
        throw failure(request, message, await readText(message))
      } catch (error) {
        throw error instanceof ApiError ? error : broken(request, error, finish.why())
      } finally {
        finish.done()
      }
    }
    finish.headArrived()
    return message
  }

  close(): void {
    this.#agent?.destroy()
    this.#streamAgent?.destroy()
  }

  #timeout(request: KubeRequest): number {
    return request.timeoutMs ?? this.#options.timeoutMs ?? 10_000
  }

  async #send(request: KubeRequest, timeoutMs: number, fresh: boolean, stream: boolean) {
    if (request.signal?.aborted) throw aborted(request)
    const identity = await this.#connection.identity(fresh)
    this.#use(identity)
    const { server } = this.#connection
    const body = request.body === undefined ? undefined : JSON.stringify(request.body)
    const secure = server.protocol === 'https:'
    const options: https.RequestOptions = {
      protocol: server.protocol,
      host: server.hostname.replace(/^\[|\]$/g, ''),
      port: server.port || (secure ? 443 : 80),
      path: pathOf(server, request),
      method: request.method ?? 'GET',
      agent: stream ? this.#streamAgent : this.#agent,
      headers: {
        ...identity.headers,
        accept: request.accept ?? 'application/json',
        'user-agent': this.#options.userAgent ?? 'ambassador',
        ...(body === undefined
          ? {}
          : { 'content-type': request.contentType ?? 'application/json', 'content-length': Buffer.byteLength(body) }),
      },
      ...(secure ? identity.tls : {}),
    }
    const outgoing = secure ? https.request(options) : http.request(options)
    const finish = this.#guard(outgoing, request, timeoutMs)
    return new Promise<{ message: http.IncomingMessage; finish: Guard }>((resolve, reject) => {
      outgoing.on('response', (message) => resolve({ message, finish }))
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        finish.done()
        const stale =
          outgoing.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE') && finish.why() === ''
        reject(broken(request, error, stale ? 'Stale' : finish.why()))
      })
      outgoing.end(body)
    })
  }

  /** Bounds a request in time and by its signal: both end it by destroying the socket, never by leaving it behind. */
  #guard(outgoing: http.ClientRequest, request: KubeRequest, timeoutMs: number): Guard {
    let why: '' | 'Timeout' | 'Aborted' = ''
    const end = (reason: 'Timeout' | 'Aborted'): void => {
      why = reason
      outgoing.destroy(new Error(reason))
    }
    const timer = this.#clock.after(Math.max(0, timeoutMs), () => end('Timeout'))
    const onAbort = (): void => end('Aborted')
    request.signal?.addEventListener('abort', onAbort, { once: true })
    return {
      why: () => why,
      headArrived: () => timer.cancel(), // the signal still ends a stream
      done() {
        timer.cancel()
        request.signal?.removeEventListener('abort', onAbort)
      },
    }
  }

  /** New agents when the TLS identity changed. The old ones are left to finish: their idle connections time out by themselves. */
  #use(identity: Identity): void {
    const before = this.#identity
    if (before === identity) return
    this.#identity = identity
    if (before !== undefined && before.agent === identity.agent && sameTls(before.tls, identity.tls)) return
    const secure = this.#connection.server.protocol === 'https:'
    // Our 55 s are below the 90 s after which an API server closes an idle connection, so that the race is rare; 'Stale' covers the rest.
    const options = {
      keepAlive: true,
      keepAliveMsecs: KEEP_ALIVE_PROBE_MS,
      maxSockets: 64,
      timeout: 55_000,
      ...identity.tls,
    }
    const streams = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_PROBE_MS, maxFreeSockets: 0, ...identity.tls }
    this.#agent = identity.agent ?? (secure ? new https.Agent(options) : new http.Agent(options))
    this.#streamAgent = identity.agent ?? (secure ? new https.Agent(streams) : new http.Agent(streams))
  }
}

function sameTls(a: Identity['tls'], b: Identity['tls']): boolean {
  return (
    String(a.ca) === String(b.ca) &&
    String(a.cert) === String(b.cert) &&
    String(a.key) === String(b.key) &&
    a.servername === b.servername &&
    a.rejectUnauthorized === b.rejectUnauthorized
  )
}

interface Guard {
  /** Why we ended the request ourselves; empty when we did not. */
  why(): '' | 'Timeout' | 'Aborted'
  headArrived(): void
  done(): void
}

function pathOf(server: URL, request: KubeRequest): string {
  const base = server.pathname.replace(/\/$/, '')
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined && value !== '') query.set(name, String(value))
  }
  const search = query.toString()
  return base + request.path + (search === '' ? '' : `?${search}`)
}

function isSuccess(message: http.IncomingMessage): boolean {
  const status = message.statusCode ?? 0
  return status >= 200 && status < 300
}

/** @throws what the stream throws: a reset, or an end before content-length bytes (`aborted`) */
async function readText(message: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function failure(request: KubeRequest, message: http.IncomingMessage, text: string): ApiError {
  const status = message.statusCode ?? 0
  let answer: Partial<KubeStatus> = {}
  try {
    const parsed = JSON.parse(text) as unknown
    if (parsed !== null && typeof parsed === 'object') answer = parsed as Partial<KubeStatus>
  } catch {
    // A proxy or a dying server answers with prose or nothing; the status says enough.
  }
  const seconds = Number(message.headers['retry-after'] ?? answer.details?.retryAfterSeconds ?? 0)
  const said = answer.message ?? (text.trim().slice(0, 200) || http.STATUS_CODES[status])
  return new ApiError(`${describe(request)}: ${status} ${said}`, {
    status,
    reason: answer.reason || http.STATUS_CODES[status]?.replaceAll(' ', '') || 'Unknown',
    retryAfterMs: Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0,
    details: answer.details,
  })
}

function broken(request: KubeRequest, cause: unknown, why: string): ApiError {
  if (why === 'Aborted') return aborted(request)
  if (why === 'Timeout') {
    return new ApiError(`${describe(request)}: no answer in time`, { status: 0, reason: 'Timeout' })
  }
  const text = cause instanceof Error ? cause.message : String(cause)
  return new ApiError(`${describe(request)}: ${text}`, {
    status: 0,
    reason: why === 'Stale' ? 'Stale' : 'Unreachable',
    cause,
  })
}

function aborted(request: KubeRequest): ApiError {
  return new ApiError(`${describe(request)}: ended by us`, { status: 0, reason: 'Aborted' })
}

function describe(request: KubeRequest): string {
  return `${request.method ?? 'GET'} ${request.path}`
}
