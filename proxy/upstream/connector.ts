/** Dials one endpoint: TCP or TLS, within a deadline, the certificate's chain and name verified; tells why when it fails. */
import { connect, isIP, type Socket } from 'node:net'
import type { ConnectionOptions, PeerCertificate, TLSSocket } from 'node:tls'
import type { Reason } from '../../common/reasons.ts'
import type { DialGuard } from '../policy/dial-guard.ts'
import { now, refreshClock } from '../runtime/clock.ts'
import { openTcp, openTls, type RawSocket, type SocketHandler, upgradeTls } from '../runtime/raw-socket.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import type { UpstreamTls } from '../tls/upstream-tls.ts'
import type { Address } from './discovery/discovery.ts'

export interface DialTarget {
  readonly address: Address
  /** Of the cluster: what must not be dialled. */
  readonly guard: DialGuard
  /** null: plain TCP. */
  readonly tls: UpstreamTls | null
  /** Protocols offered in the handshake (`['http/1.1']`); null: none. */
  readonly alpn: readonly string[] | null
  /** For TCP and TLS together. */
  readonly timeoutMs: number
  /** Null or absent: TLS begins with the first byte. */
  readonly startTls?: StartTls | null
  /** What the socket reads into; default: the whole buffer that all sockets share. */
  readonly readBuffer?: Buffer
}

/** TLS that begins in the middle of a connection: one question, one byte in answer, and nothing of the server's behind it. */
export interface StartTls {
  readonly question: Buffer
  /** The byte that says yes. */
  readonly yes: number
  /** What is wrong with any other answer, and the remedy. */
  readonly refused: string
}

export interface DialFailure {
  /** One of connect_refused, connect_timeout, tls_verify_failed, upstream_reset (ended in the middle of the handshake), egress_denied. */
  readonly reason: Reason
  /** Names the endpoint, what happened and the remedy; no secret. */
  readonly detail: string
}

export interface DialTimes {
  /** Until TCP was connected, in milliseconds. */
  readonly connectMs: number
  /** Of the TLS handshake; 0 without TLS. */
  readonly tlsMs: number
}

/** Exactly one of the two is called, later than dial() itself, and none after cancel(). */
export interface Dialler {
  /** Set `socket.handler` before returning: bytes may follow at once. The deadline is off from here on. */
  onDialled(socket: RawSocket, times: DialTimes): void
  onDialFailed(failure: DialFailure): void
}

/** A dial in progress. */
export interface Dial {
  /** Gives up: nothing is called any more. Without effect once it has ended. */
  cancel(): void
}

/** Begins to dial. Never throws and never calls back before it returned. */
export function dial(target: DialTarget, dialler: Dialler): Dial {
  return new DialAttempt(target, dialler)
}

class DialAttempt implements Dial, SocketHandler {
  readonly #target: DialTarget
  #dialler: Dialler | null
  #socket: RawSocket | null = null
  #plain: Socket | null = null
  readonly #deadline: CoarseTimer
  readonly #startedAt = refreshClock()
  #connectedAt = 0

  constructor(target: DialTarget, dialler: Dialler) {
    this.#target = target
    this.#dialler = dialler
    this.#deadline = new CoarseTimer(() => this.#onDeadline())
    const { address, tls, guard } = target
    const refusal = guard.refusal(address.host, address.ip, address.port)
    if (refusal !== null) {
      setImmediate(() => this.#fail('egress_denied', refusal.detail))
      return
    }
    if (tls !== null && tls.context === null) {
      const why = tls.failure ?? 'its files are not loaded'
      setImmediate(() => this.#fail('tls_verify_failed', `${name(address)}: not dialled, TLS cannot be set up: ${why}`))
      return
    }
    this.#deadline.set(now() + target.timeoutMs)
    try {
      if (tls === null) this.#dialTcp(address)
      else if (target.startTls != null) this.#startTls(address, tls, target.startTls)
      else this.#dialTls(address, tls)
    } catch (error) {
      setImmediate(() => this.#fail('connect_refused', `${name(address)}: ${(error as Error).message}`))
    }
  }

  #dialTcp(address: Address): void {
    const raw = openTcp(
      { host: address.ip, port: address.port, noDelay: true, keepAlive: true },
      this,
      this.#target.readBuffer,
    )
    this.#socket = raw
    raw.socket.once('connect', () => {
      this.#connectedAt = refreshClock()
      this.#succeed(raw, 0)
    })
  }

  #dialTls(address: Address, tls: UpstreamTls): void {
    const raw = openTls(
      { host: address.ip, port: address.port, ...this.#tlsOptions(address, tls) },
      this,
      this.#target.readBuffer,
    )
    raw.socket.once('connect', () => {
      this.#connectedAt = refreshClock()
      raw.socket.setNoDelay(true)
      raw.socket.setKeepAlive(true)
    })
    this.#secure(raw, address, tls)
  }

  /** A server that sends more than the one byte before TLS begins may have been spoken for by somebody between (CVE-2021-23222). */
  #startTls(address: Address, tls: UpstreamTls, { question, yes, refused }: StartTls): void {
    const where = name(address)
    const plain = connect({ host: address.ip, port: address.port, allowHalfOpen: true, noDelay: true, keepAlive: true })
    this.#plain = plain
    const onData = (answer: Buffer): void => {
      if (answer.length > 1) {
        this.#fail('tls_verify_failed', `${where} sent bytes in plain text before TLS began: somebody may be between`)
      } else if (answer[0] !== yes) this.#fail('tls_verify_failed', `${where} ${refused}`)
      else if (this.#dialler !== null) {
        plain.off('data', onData)
        plain.off('end', onEnd)
        plain.off('close', onClose)
        this.#secure(upgradeTls(plain, this.#tlsOptions(address, tls), this), address, tls)
      }
    }
    const onEnd = (): void => this.#fail('upstream_reset', `${where} closed the connection before TLS began`)
    let broken: Error | null = null
    const onClose = (): void => this.onClose(broken)
    plain.on('data', onData)
    plain.on('end', onEnd)
    plain.on('close', onClose)
    plain.on('error', (error) => {
      broken = error
    })
    plain.once('connect', () => {
      this.#connectedAt = refreshClock()
      plain.write(question)
    })
  }

  #tlsOptions(address: Address, tls: UpstreamTls): ConnectionOptions {
    const serverName = tls.serverName ?? address.host
    return {
      secureContext: tls.context ?? undefined,
      session: tls.session(sessionKey(address, tls)),
      // RFC 6066 section 3: an IP address is not a server name. It is verified against the IP SANs all the same.
      servername: isIP(serverName) === 0 ? serverName : '',
      checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
        process.getBuiltinModule('node:tls').checkServerIdentity(serverName, certificate),
      // Said here because NODE_TLS_REJECT_UNAUTHORIZED=0 would turn it off silently.
      rejectUnauthorized: true,
      ALPNProtocols: this.#target.alpn === null ? undefined : [...this.#target.alpn],
    }
  }

  #secure(raw: RawSocket, address: Address, tls: UpstreamTls): void {
    const key = sessionKey(address, tls)
    this.#socket = raw
    raw.socket.once('secureConnect', () => this.#succeed(raw, refreshClock() - this.#connectedAt))
    // TLS 1.3 sends its tickets after the handshake, so this outlives the dial.
    raw.socket.on('session', (session: Buffer) => tls.keepSession(key, session))
  }

  cancel(): void {
    this.#dialler = null
    this.#deadline.release()
    this.#socket?.destroy()
    this.#plain?.destroy()
  }

  #succeed(raw: RawSocket, tlsMs: number): void {
    const dialler = this.#dialler
    if (dialler === null) return
    this.#dialler = null
    this.#deadline.release()
    dialler.onDialled(raw, { connectMs: this.#connectedAt - this.#startedAt, tlsMs })
  }

  #fail(reason: Reason, detail: string): void {
    const dialler = this.#dialler
    if (dialler === null) return
    this.#dialler = null
    this.#deadline.release()
    this.#socket?.destroy()
    this.#plain?.destroy()
    dialler.onDialFailed({ reason, detail })
  }

  #onDeadline(): void {
    const { address, timeoutMs } = this.#target
    const what = this.#connectedAt === 0 ? 'did not accept a connection' : 'did not finish the TLS handshake'
    this.#fail('connect_timeout', `${name(address)} ${what} within ${timeoutMs} ms`)
  }

  onData(): void {}
  onDrain(): void {}

  onEnd(): void {
    this.#fail('upstream_reset', `${name(this.#target.address)} closed the connection during the TLS handshake`)
  }

  onClose(error: Error | null): void {
    const { address, tls } = this.#target
    if (error === null) {
      this.onEnd()
      return
    }
    const code = (error as NodeJS.ErrnoException).code ?? ''
    const untrusted = (this.#socket?.socket as TLSSocket | undefined)?.authorizationError
    if (tls !== null && untrusted) {
      this.#fail('tls_verify_failed', describeUntrusted(address, tls, error))
    } else if (this.#connectedAt > 0) {
      this.#fail('upstream_reset', `${name(address)} ended the TLS handshake: ${error.message}`)
    } else if (code === 'ETIMEDOUT') {
      this.#fail('connect_timeout', `${name(address)} did not accept a connection: ETIMEDOUT`)
    } else {
      this.#fail('connect_refused', `${name(address)} cannot be connected to: ${code || error.message}`)
    }
  }
}

function sessionKey(address: Address, tls: UpstreamTls): string {
  return `${address.ip}:${address.port}/${tls.serverName ?? address.host}`
}

function name(address: Address): string {
  const where = `${address.ip.includes(':') ? `[${address.ip}]` : address.ip}:${address.port}`
  return address.host === address.ip ? `endpoint ${where}` : `endpoint '${address.host}' (${where})`
}

function describeUntrusted(address: Address, tls: UpstreamTls, error: Error): string {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
  const wanted = tls.serverName ?? address.host
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const names = (error as Error & { cert?: PeerCertificate }).cert?.subjectaltname ?? 'no name'
    return `${name(address)}: its certificate is for ${names}, not for '${wanted}'; set tls.serverName to a name that it has`
  }
  const remedy =
    code.includes('EXPIRED') || code.includes('NOT_YET_VALID') ? '' : '; set tls.ca to the CA that issued it'
  return `${name(address)}: its certificate is not trusted: ${error.message} (${code})${remedy}`
}
