/** The payment provider of the demo: an HTTPS API with a certificate of a private CA, which fails, stops and comes back when told to. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { createAuthority, createLeaf, type KeyPair } from '../../operator/webhook/x509.ts'

/** Name in its certificate. */
export const PROVIDER_NAME = 'payment-provider'

/** What became of the requests that arrived. */
export interface Seen {
  /** Requests, whatever the answer. */
  readonly requests: number
  readonly answered200: number
  readonly answered503: number
  /** Connections that it cut instead of answering. */
  readonly cut: number
  /** Requests by the token that they brought. */
  readonly tokens: ReadonlyMap<string, number>
  /** TLS handshakes that the other side broke off. */
  readonly refusedHandshakes: number
}

export class Provider {
  readonly #authority: KeyPair
  readonly #validity = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) }
  #server: Server | null = null
  readonly #sockets = new Set<Socket>()
  #port = 0
  #turn = 0
  #certificate: KeyPair
  /** Fails two of three requests: one with 503, one by cutting the connection. */
  isFlaky = true
  #seen = emptySeen()

  constructor() {
    this.#authority = createAuthority(this.#validity)
    this.#certificate = createLeaf(this.#authority, [PROVIDER_NAME], this.#validity)
  }

  /** PEM of the CA, which no machine trusts but those that are told to. */
  get ca(): string {
    return this.#authority.certificate
  }

  get port(): number {
    return this.#port
  }

  /** What it has seen since the last call. */
  takeSeen(): Seen {
    const seen = this.#seen
    this.#seen = emptySeen()
    return seen
  }

  /** Listens on 127.0.0.1: on a free port, and after stop() on the same one again. */
  async start(): Promise<void> {
    const { certificate: cert, privateKey: key } = this.#certificate
    const server = createServer({ cert, key }, (request, response) => {
      request.resume()
      this.#seen.requests++
      const token = request.headers.authorization ?? 'none'
      this.#seen.tokens.set(token, (this.#seen.tokens.get(token) ?? 0) + 1)
      const turn = this.isFlaky ? this.#turn++ % 3 : 2
      if (turn === 0) {
        this.#seen.answered503++
        response.writeHead(503, { 'content-type': 'text/plain' }).end('overloaded\n')
      } else if (turn === 1) {
        this.#seen.cut++
        request.socket.destroy()
      } else {
        this.#seen.answered200++
        response.writeHead(200, { 'content-type': 'application/json' }).end('{"charges":[]}\n')
      }
    })
    server.on('tlsClientError', () => this.#seen.refusedHandshakes++)
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    server.listen(this.#port, '127.0.0.1')
    await once(server, 'listening')
    this.#port = (server.address() as AddressInfo).port
    this.#server = server
  }

  /** Goes down: nothing listens any more, and open connections are cut. */
  async stop(): Promise<void> {
    const server = this.#server
    this.#server = null
    if (server === null) return
    const closed = once(server, 'close')
    server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  /** Shows another certificate of the same CA, for this name; connections that are open are cut. */
  useCertificate(name: string): void {
    this.#certificate = createLeaf(this.#authority, [name], this.#validity)
    const { certificate: cert, privateKey: key } = this.#certificate
    this.#server?.setSecureContext({ cert, key })
    for (const socket of this.#sockets) socket.destroy()
  }
}

function emptySeen() {
  return {
    requests: 0,
    answered200: 0,
    answered503: 0,
    cut: 0,
    tokens: new Map<string, number>(),
    refusedHandshakes: 0,
  }
}
