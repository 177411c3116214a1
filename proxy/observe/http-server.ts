/** A small HTTP server for the sidecar's own two ports: fixed paths, short answers, bounded in every direction. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'

export interface Answer {
  readonly status: number
  /** Default text/plain. */
  readonly type?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

export type Method = 'GET' | 'POST' | 'PUT'

/** Gets the body as text (empty for GET) and what follows the question mark in the request target. */
export type Handler = (body: string, query: string) => Answer

/** Path → method → handler. HEAD is answered wherever GET is. */
export type Routes = Readonly<Record<string, Partial<Record<Method, Handler>>>>

export interface HttpServerOptions {
  readonly routes: Routes
  /** Refuses a request before anything else looks at it. */
  readonly guard?: (request: IncomingMessage) => Answer | null
}

/** The port cannot be bound. */
export class ServerPortError extends Error {
  override readonly name = 'ServerPortError'
}

const MAX_BODY_BYTES = 1024

/** Answers of this server are for programs and for the person who asked, never for a cache or a frame. */
const COMMON_HEADERS = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' } as const

export class HttpServer {
  readonly #options: HttpServerOptions
  readonly #servers: Server[] = []

  constructor(options: HttpServerOptions) {
    this.#options = options
  }

  /** The port that is bound; 0 before listen(). */
  get port(): number {
    const address = this.#servers[0]?.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /**
   * Binds `port` (0: a free one): `any` on all addresses, `loopback` on 127.0.0.1 and ::1; without IPv6 in the kernel on those of
   * IPv4 alone.
   * @param what whose port it is, for the message
   * @throws {ServerPortError} when the port is taken or cannot be bound
   */
  async listen(port: number, scope: 'any' | 'loopback', what: string): Promise<void> {
    try {
      if (scope === 'loopback') {
        await this.#bind(port, '127.0.0.1')
        await this.#bind(this.port, '::1').catch(onlyWithoutIpv6)
      } else {
        // `::` takes the addresses of both families.
        await this.#bind(port, '::').catch((error: NodeJS.ErrnoException) => {
          onlyWithoutIpv6(error)
          return this.#bind(port, '0.0.0.0')
        })
      }
    } catch (error) {
      await this.close()
      const { code, message } = error as NodeJS.ErrnoException
      const why = code === 'EADDRINUSE' ? 'is in use by another process of this pod' : `cannot be bound: ${message}`
      throw new ServerPortError(`${what}: port ${port} ${why}, use another port`)
    }
  }

  /** Accepts no more and cuts what is open. Idempotent. */
  async close(): Promise<void> {
    const servers = this.#servers.splice(0)
    await Promise.all(
      servers.map((server) => {
        const closed = new Promise((resolve) => server.close(resolve))
        server.closeAllConnections()
        return closed
      }),
    )
  }

  #bind(port: number, host: string): Promise<void> {
    const server = this.#create()
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen({ port, host, exclusive: true, ipv6Only: host === '::1' }, () => {
        server.off('error', reject)
        // An accept that fails must not end the process; whoever asked will ask again.
        server.on('error', () => {})
        this.#servers.push(server)
        resolve()
      })
    })
  }

  #create(): Server {
    const server = createServer({ maxHeaderSize: 8192, headersTimeout: 5_000, requestTimeout: 5_000 })
    server.maxConnections = 64
    server.keepAliveTimeout = 5_000
    server.on('request', (request, response) => this.#onRequest(request, response))
    return server
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const chunks: Buffer[] = []
    let size = 0
    request.on('error', () => response.destroy())
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size <= MAX_BODY_BYTES) chunks.push(chunk)
    })
    request.on('end', () => {
      const answer =
        size > MAX_BODY_BYTES
          ? { status: 413, body: `the body has more than ${MAX_BODY_BYTES} bytes, send less\n` }
          : this.#answer(request, Buffer.concat(chunks).toString('utf8'))
      const body = Buffer.from(answer.body)
      response.writeHead(answer.status, {
        'content-type': answer.type ?? 'text/plain; charset=utf-8',
        'content-length': body.length,
        ...COMMON_HEADERS,
        ...answer.headers,
      })
      response.end(request.method === 'HEAD' ? undefined : body)
    })
  }

  #answer(request: IncomingMessage, body: string): Answer {
    const refusal = this.#options.guard?.(request)
    if (refusal) return refusal
    const [path = '', query = ''] = (request.url ?? '').split('?', 2)
    const { routes } = this.#options
    const methods = Object.hasOwn(routes, path) ? routes[path] : undefined
    if (methods === undefined) {
      return { status: 404, body: `no such path, use one of ${Object.keys(routes).join(' ')}\n` }
    }
    const handler = methods[(request.method === 'HEAD' ? 'GET' : request.method) as Method]
    if (handler !== undefined) return handler(body, query)
    const allowed = Object.keys(methods).flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    return {
      status: 405,
      headers: { allow: allowed.join(', ') },
      body: `${request.method} is not allowed here, use ${allowed.join(' or ')}\n`,
    }
  }
}

/** Swallows the errors of a kernel without IPv6, or with it turned off. */
function onlyWithoutIpv6(error: NodeJS.ErrnoException): void {
  if (!['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'].includes(error.code ?? '')) throw error
}
