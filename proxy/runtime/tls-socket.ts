/** TLS on a connection that is open, as a client: shakes hands, verifies who the peer is, and is a RawSocket from then on. */
import type { PeerCertificate, SecureContext } from 'node:tls'
import { SHARED_READ_BUFFER } from './buffers.ts'
import { type LegacyCertificate, type TlsHandle, wrapTls } from './handles.ts'
import { RawSocket, type SocketHandler } from './raw-socket.ts'

export interface TlsOptions {
  readonly context: SecureContext
  /** Verified against the certificate: a name or an IP address. */
  readonly serverName: string
  /** Sent in the ClientHello; null for an IP address, which RFC 6066 section 3 does not call a server name. */
  readonly sentName: string | null
  /** Of an earlier connection to the same server by the same name, to be resumed; undefined: none. */
  readonly session: Buffer | undefined
  /** Protocols that are offered, the best first; null: none. */
  readonly alpn: readonly string[] | null
  /** Neither chain nor name count. */
  readonly isUnverified: boolean
}

/** Why the peer is not who it should be. */
export class UntrustedError extends Error {
  override readonly name = 'UntrustedError'
  readonly code: string
  /** The certificates that it showed, its own first. */
  readonly chain: readonly LegacyCertificate[]

  constructor(cause: NodeJS.ErrnoException, chain: readonly LegacyCertificate[]) {
    super(cause.message, { cause })
    this.code = cause.code ?? 'unknown'
    this.chain = chain
  }
}

/** Hears of the handshake, besides what every socket tells. */
export interface SecureHandler extends SocketHandler {
  /** The handshake is over and the peer is trusted; it may be written to, and sends from now on. */
  onSecure(socket: TlsSocket): void
}

/** Told of each session that the server gives, once it is trusted: TLS 1.3 sends them after the handshake. */
export type OnSession = (session: Buffer) => void

/** Keys of finite fields below this are too weak, as node:tls has it. In bits. */
const MIN_DH_BITS = 1024

export class TlsSocket extends RawSocket {
  /** The protocol that both sides agreed on; null: none. */
  alpn: string | null = null
  /** The group of the key exchange as OpenSSL calls it; null: none, or not known. */
  group: string | null = null

  readonly #tls: TlsHandle
  /** That it was made with. */
  readonly context: SecureContext
  // Not the options: a session has two kilobytes, which an open connection needs no more.
  readonly #serverName: string
  readonly #isUnverified: boolean
  readonly #onSession: OnSession
  #isTrusted = false
  /** Of a server that is not trusted yet. */
  #early: Buffer | null = null

  /** Takes the connection of `plain`, on which nothing may be under way, and begins to shake hands. */
  constructor(
    plain: RawSocket,
    options: TlsOptions,
    handler: SecureHandler,
    onSession: OnSession,
    readBuffer: Buffer = SHARED_READ_BUFFER,
  ) {
    const connection = RawSocket.release(plain)
    const tls = wrapTls(connection, options.context.context)
    super(connection, tls, 'open', handler, readBuffer)
    this.#tls = tls
    this.context = options.context
    this.#serverName = options.serverName
    this.#isUnverified = options.isUnverified
    this.#onSession = onSession
    tls.onhandshakestart = nothing
    tls.onhandshakedone = onHandshakeDone
    tls.onnewsession = onNewSession
    tls.onerror = onTlsError
    tls.setVerifyMode(true, !options.isUnverified)
    tls.enableSessionCallbacks()
    if (options.session !== undefined) tls.setSession(options.session)
    if (options.sentName !== null) tls.setServername(options.sentName)
    if (options.alpn !== null) tls.setALPNProtocols(wireFormat(options.alpn))
    this.start()
    tls.start()
  }

  /** The certificate of the peer, in DER; null: it has none. */
  get peerCertificate(): Buffer | null {
    return this.destroyed ? null : (this.#tls.getPeerCertificate(false)?.raw ?? null)
  }

  /** For the handle alone. Called again when a server of TLS 1.2 renegotiates, and may show another certificate. */
  onHandshakeDone(): void {
    if (this.destroyed) return
    const error = this.#problem()
    if (error !== null) {
      this.fail(error)
      return
    }
    if (this.#isTrusted) return
    this.#isTrusted = true
    this.alpn = this.#tls.getALPNNegotiatedProtocol() || null
    ;(this.handler as SecureHandler).onSecure(this)
    if (this.#early !== null) this.#onSession(this.#early)
    this.#early = null
  }

  /** Null: the peer is who it should be, or nobody asks. */
  #problem(): Error | null {
    const key = this.#tls.getEphemeralKeyInfo()
    this.group = key?.name ?? null
    if (key?.type === 'DH' && (key.size ?? 0) < MIN_DH_BITS) {
      return new Error(
        `the server's key for the exchange has ${key.size ?? 0} bits, give it one of ${MIN_DH_BITS} at least`,
      )
    }
    if (this.#isUnverified) return null
    const error = this.#tls.verifyError() ?? (this.#tls.isSessionReused() ? null : this.#otherName())
    return error === null ? null : new UntrustedError(error, this.#chain())
  }

  /** A session that is resumed was verified by its own name when it began. */
  #otherName(): Error | null {
    const { checkServerIdentity } = process.getBuiltinModule('node:tls')
    // Names are the same here as in what node:tls makes of it.
    const certificate = (this.#tls.getPeerCertificate(true) ?? {}) as unknown as PeerCertificate
    return checkServerIdentity(this.#serverName, certificate) ?? null
  }

  #chain(): readonly LegacyCertificate[] {
    const chain: LegacyCertificate[] = []
    let next = this.#tls.getPeerCertificate(true)
    while (next?.raw !== undefined && !chain.includes(next)) {
      chain.push(next)
      next = next.issuerCertificate
    }
    return chain
  }

  /** For the handle alone. */
  onNewSession(session: Buffer): void {
    if (this.#isTrusted) this.#onSession(session)
    else this.#early = session
  }

  /** For the handle alone: an alert, or a record that cannot be read. */
  onTlsError(error: Error): void {
    this.fail(error)
  }

  override onClosed(): void {
    // Behind the close, and not on the stack of OpenSSL.
    this.#tls.destroySSL()
    super.onClosed()
  }
}

function nothing(): void {}

function onHandshakeDone(this: TlsHandle): void {
  ;(this.owner as TlsSocket).onHandshakeDone()
}

function onNewSession(this: TlsHandle, _id: Buffer, session: Buffer): void {
  ;(this.owner as TlsSocket).onNewSession(session)
}

function onTlsError(this: TlsHandle, error: Error): void {
  ;(this.owner as TlsSocket).onTlsError(error)
}

const wireFormats = new WeakMap<readonly string[], Buffer>()

/** RFC 7301 section 3.1: each name behind its length. */
function wireFormat(protocols: readonly string[]): Buffer {
  const known = wireFormats.get(protocols)
  if (known !== undefined) return known
  const made = Buffer.concat(protocols.flatMap((name) => [Buffer.of(name.length), Buffer.from(name, 'latin1')]))
  wireFormats.set(protocols, made)
  return made
}
