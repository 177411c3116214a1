/** A small API server that answers as its script says, rightly or wrongly; one step per request, in order. */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Connection } from '../../operator/kube/connection.ts'
import type { KubeObject } from '../../operator/kube/objects.ts'

export interface Recorded {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
  readonly body: unknown
}

export type Step = (request: Recorded, response: http.ServerResponse) => void | Promise<void>

/** One page of a list. */
export function page(items: readonly KubeObject[], resourceVersion: string, token?: string): Step {
  return (_request, response) => json(response, 200, { metadata: { resourceVersion, continue: token }, items })
}

/** An object, or anything else that is JSON. */
export function answer(value: unknown, status = 200): Step {
  return (_request, response) => json(response, status, value)
}

/** A meta/v1 Status with its HTTP status. */
export function failure(code: number, reason: string, headers: Record<string, string> = {}): Step {
  return (_request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    json(response, code, { kind: 'Status', code, reason, message: `${reason} by script` })
  }
}

/** Raw bytes of a watch, and then what. `end`: the regular end; `reset`: the connection breaks; `hang`: nothing ever comes again. */
export function watch(lines: readonly (object | string)[], then: 'end' | 'reset' | 'hang'): Step {
  return async (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    response.flushHeaders()
    for (const line of lines) {
      await new Promise<void>((resolve) => {
        response.write(typeof line === 'string' ? line : `${JSON.stringify(line)}\n`, () => resolve())
      })
    }
    if (then === 'end') response.end()
    else if (then === 'reset') response.socket?.resetAndDestroy()
  }
}

/** The connection breaks before any answer. */
export const reset: Step = (_request, response) => {
  response.socket?.resetAndDestroy()
}

/** The request is read and never answered. */
export const silence: Step = () => {}

export interface ScriptedServer extends AsyncDisposable {
  readonly connection: Connection
  readonly requests: readonly Recorded[]
  /** Adds steps at the end. */
  push(...steps: Step[]): void
  /** Resolves when so many requests have come in all. */
  received(count: number): Promise<void>
}

/** Starts the server on a free port. Requests beyond the script get silence. */
export async function scriptedServer(...script: Step[]): Promise<ScriptedServer> {
  const steps = [...script]
  const requests: Recorded[] = []
  const waiting: { count: number; resolve: () => void }[] = []
  const server = http.createServer(async (incoming, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const url = new URL(incoming.url ?? '/', 'http://api')
    const text = Buffer.concat(chunks).toString('utf8')
    const request: Recorded = {
      method: incoming.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: incoming.headers,
      body: text === '' ? undefined : JSON.parse(text),
    }
    requests.push(request)
    const step = steps.shift() ?? silence
    for (const each of waiting) if (requests.length >= each.count) each.resolve()
    await step(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const identity = { headers: { authorization: 'Bearer test' }, tls: {} }
  return {
    connection: {
      server: new URL(`http://127.0.0.1:${port}`),
      namespace: 'default',
      identity: async () => identity,
    },
    requests,
    push: (...more) => {
      steps.push(...more)
    },
    received: (count) =>
      requests.length >= count
        ? Promise.resolve()
        : new Promise((resolve) => {
            waiting.push({ count, resolve })
          }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function json(response: http.ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(value))
}
