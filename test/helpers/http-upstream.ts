/** An upstream that a test scripts byte by byte: it reads whole requests and answers with whatever the test says. */
import type { Socket } from 'node:net'
import { type TestServer, tcpServer } from './tcp.ts'

export interface ReceivedRequest {
  /** The head as it came, last empty line included. */
  readonly head: string
  /** The body as it came, framing included. */
  readonly body: string
  readonly method: string
  readonly target: string
  /** Counted from 0 over all connections, and the number of the connection. */
  readonly index: number
  readonly connection: number
  readonly socket: Socket
  field(name: string): string | null
}

export type Answer = string | Buffer | null | undefined

/** A response with Content-Length. */
export function ok(body = 'ok', ...lines: string[]): string {
  const fields = [`Content-Length: ${Buffer.byteLength(body)}`, ...lines]
  return `HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\n\r\n${body}`
}

export function withStatus(status: number, body = '', ...lines: string[]): string {
  return ok(body, ...lines).replace('200 OK', `${status} x`)
}

export class ScriptedUpstream {
  readonly server: TestServer
  readonly requests: ReceivedRequest[]
  readonly #wake: (() => void)[]

  constructor(server: TestServer, requests: ReceivedRequest[], wake: (() => void)[]) {
    this.server = server
    this.requests = requests
    this.#wake = wake
  }

  get port(): number {
    return this.server.port
  }

  get connections(): number {
    return this.server.accepted
  }

  /** Resolves with the request of a number (from 0), once it is whole. */
  async request(index: number): Promise<ReceivedRequest> {
    while (this.requests.length <= index) await new Promise<void>((resolve) => this.#wake.push(resolve))
    return this.requests[index]!
  }
}

export interface UpstreamOptions {
  /** Called with each head, before its body is read; true: the script reads the rest by itself. */
  readonly onHead?: (request: Omit<ReceivedRequest, 'body'>) => boolean | undefined
  /** Port to listen on; default a free one. */
  readonly port?: number
}

/** Starts one. `respond` gets each whole request; what it returns is written. */
export async function scriptedUpstream(
  ends: (() => unknown)[],
  respond: (request: ReceivedRequest) => Answer | Promise<Answer>,
  options: UpstreamOptions = {},
): Promise<ScriptedUpstream> {
  const requests: ReceivedRequest[] = []
  const wake: (() => void)[] = []
  let connections = 0
  const server = await tcpServer((socket) => {
    const connection = connections++
    let pending = ''
    let isHandedOver = false
    socket.on('end', () => socket.end())
    socket.on('data', (data) => {
      if (isHandedOver) return
      pending += data.toString('latin1')
      for (;;) {
        const headEnd = pending.indexOf('\r\n\r\n') + 4
        if (headEnd < 4) return
        const head = pending.slice(0, headEnd)
        const [method = '', target = ''] = head.split(' ')
        const field = (name: string): string | null =>
          new RegExp(`^${name}:[ \t]*(.*?)[ \t]*\r$`, 'im').exec(head)?.[1] ?? null
        const started = { head, method, target, index: requests.length, connection, socket, field }
        if (options.onHead?.(started) === true) {
          isHandedOver = true
          return
        }
        const bodyEnd = endOfBody(pending, headEnd, field)
        if (bodyEnd < 0) return
        const request = { ...started, body: pending.slice(headEnd, bodyEnd) }
        pending = pending.slice(bodyEnd)
        requests.push(request)
        void Promise.resolve(respond(request)).then((answer) => {
          if (answer != null && !socket.destroyed)
            socket.write(typeof answer === 'string' ? Buffer.from(answer, 'latin1') : answer)
        })
        for (const each of wake.splice(0)) each()
      }
    })
  }, options.port ?? 0)
  ends.push(() => server.close())
  return new ScriptedUpstream(server, requests, wake)
}

function endOfBody(text: string, start: number, field: (name: string) => string | null): number {
  if (field('Transfer-Encoding') !== null) {
    const last = text.indexOf('\r\n0\r\n', start - 2)
    if (last < 0) return -1
    const end = text.indexOf('\r\n\r\n', last + 3)
    return end < 0 ? -1 : end + 4
  }
  const length = Number(field('Content-Length') ?? 0)
  return text.length - start >= length ? start + length : -1
}
