/** The HTTP side of the webhook: paths, media types, sizes and times; a review goes in as JSON and out as JSON. */
import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http'
import express, { type Express } from 'express'
import { durationMs } from '../../common/duration.ts'
import type { Clock } from '../kube/clock.ts'
import { dropBody, readBody } from './body.ts'
import type { Json } from './json.ts'
import { Limiter } from './limiter.ts'
import type { Malformed, WebhookMetrics } from './metrics.ts'
import { type AdmissionRequest, answer, parseReview, type Reviewer, type Verdict } from './review.ts'

/** What an API server may send: its own limit for an object. A review of an update carries two, and is still below it in practice. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024
/** Bytes of bodies that are held at once. */
const MAX_HELD_BYTES = 32 * 1024 * 1024
/** Requests that wait until bytes are free. */
const MAX_WAITING = 2048
/** What an API server waits when the webhook configuration does not say. */
const DEFAULT_TIMEOUT_MS = 10_000
/** The answer is on its way this long before the API server gives up: a reason from us instead of "context deadline exceeded". */
const ANSWER_BEFORE_MS = 500

const PATHS = { '/mutate-pods': 'pods', '/mutate-workloads': 'workloads' } as const

export interface AppOptions {
  readonly reviewer: Pick<Reviewer, 'pod' | 'workload'>
  readonly metrics: WebhookMetrics
  readonly clock: Clock
  /** Asked at each answer: true while the process ends, so that API servers open their next connection elsewhere. */
  readonly isDraining?: () => boolean
}

/** A refusal below the level of reviews. API servers show `message` to the person. */
interface Refusal {
  readonly code: number
  readonly reason: Malformed
  readonly message: string
}

export function createApp(options: AppOptions): Express {
  const { reviewer, clock } = options
  const limiter = new Limiter({ capacity: MAX_HELD_BYTES, maxWaiting: MAX_WAITING, clock })
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  for (const [path, webhook] of Object.entries(PATHS)) {
    const review = (request: AdmissionRequest, deadline: number): Promise<Verdict> =>
      webhook === 'pods' ? reviewer.pod(request, deadline) : reviewer.workload(request, deadline)
    app.post(path, (request, response) => serve(request, response, webhook, review))
    app.all(path, (request, response) => {
      request.resume()
      response.setHeader('allow', 'POST')
      sendStatus(response, 405, 'MethodNotAllowed', `${path}: only POST is answered`)
    })
  }
  app.use((request, response) => {
    request.resume()
    sendStatus(response, 404, 'NotFound', `there is nothing at this path, use ${Object.keys(PATHS).join(' or ')}`)
  })
  return app

  async function serve(
    request: IncomingMessage,
    response: ServerResponse,
    webhook: string,
    review: (request: AdmissionRequest, deadline: number) => Promise<Verdict>,
  ): Promise<void> {
    const started = clock.now()
    if (options.isDraining?.() === true) response.setHeader('connection', 'close')
    const deadline = started + timeoutOf(request) - ANSWER_BEFORE_MS
    const outcome = await handle(request, deadline, review)
    if ('code' in outcome) {
      options.metrics.malformed(outcome.reason)
      // The rest of a body that nobody reads would be taken for the next request.
      if (!request.complete) response.setHeader('connection', 'close')
      if (outcome.reason !== 'Disconnected') sendStatus(response, outcome.code, outcome.reason, outcome.message)
    } else {
      send(response, 200, answer(outcome.admission.uid, outcome.verdict))
      options.metrics.review(outcome.verdict.result, outcome.verdict.reason, outcome.admission.dryRun)
    }
    options.metrics.took(webhook, (clock.now() - started) / 1000)
  }

  async function handle(
    request: IncomingMessage,
    deadline: number,
    review: (request: AdmissionRequest, deadline: number) => Promise<Verdict>,
  ): Promise<Refusal | { admission: AdmissionRequest; verdict: Verdict }> {
    const type = (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
    const encoding = request.headers['content-encoding'] ?? 'identity'
    if (type !== 'application/json' || encoding !== 'identity') {
      await dropBody(request, { deadline, clock })
      const sent = encoding === 'identity' ? `"${type}"` : `${encoding} content`
      return refuse(415, 'NotJson', `${sent} is not answered; send plain application/json`)
    }
    const length = Number(request.headers['content-length'] ?? MAX_BODY_BYTES)
    const weight = Math.min(length, MAX_BODY_BYTES)
    const admitted = limiter.acquire(weight, deadline)
    if (!(typeof admitted === 'boolean' ? admitted : await admitted)) {
      await dropBody(request, { deadline, clock })
      return refuse(503, 'Overloaded', 'the operator has more reviews than it can hold; try again')
    }
    try {
      const body = await readBody(request, { maxBytes: MAX_BODY_BYTES, deadline, clock })
      if (body.kind === 'too-large') {
        return refuse(413, 'TooLarge', `the review is larger than ${MAX_BODY_BYTES} bytes; make the object smaller`)
      }
      if (body.kind === 'timeout') return refuse(408, 'Timeout', 'the review did not arrive in time; try again')
      if (body.kind === 'disconnected') return refuse(400, 'Disconnected', '')
      const parsed = parseJson(body.bytes)
      if (parsed === undefined) return refuse(400, 'NotJson', 'the body is not JSON')
      const admission = parseReview(parsed)
      if (typeof admission === 'string') return refuse(400, 'NotAReview', admission)
      return { admission, verdict: await review(admission, deadline) }
    } finally {
      limiter.release(weight)
    }
  }
}

function refuse(code: number, reason: Malformed, message: string): Refusal {
  return { code, reason, message }
}

function parseJson(bytes: Buffer): Json | undefined {
  try {
    return JSON.parse(bytes.toString('utf8')) as Json
  } catch {
    return undefined // JSON.parse quotes what it read, and that may hold a secret
  }
}

/** `?timeout=5s`, which API servers append. */
function timeoutOf(request: IncomingMessage): number {
  const query = new URLSearchParams((request.url ?? '').split('?')[1] ?? '')
  return durationMs(query.get('timeout') ?? '') ?? DEFAULT_TIMEOUT_MS
}

/** A meta/v1 Status, which API servers and kubectl know how to show. */
function sendStatus(response: ServerResponse, code: number, reason: string, message: string): void {
  send(response, code, { apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Failure', message, reason, code })
}

function send(response: ServerResponse, code: number, body: Json): void {
  const bytes = Buffer.from(JSON.stringify(body))
  response.writeHead(code, { 'content-type': 'application/json', 'content-length': bytes.length })
  response.end(bytes)
}

/** Idle connections of an API server live up to 90 seconds; ours must live longer, or the two race. */
export function setTimeouts(server: HttpServer): void {
  server.keepAliveTimeout = 120_000
  server.headersTimeout = 125_000
  server.requestTimeout = 130_000
}
