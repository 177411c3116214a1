/** Dials one endpoint: TCP or TLS, within a deadline, the certificate's chain and name verified; tells why when it fails. */
import { isIP } from 'node:net'
import type { ProxyProtocol } from '../../common/proxy-config.ts'
import type { Reason } from '../../common/reasons.ts'
import type { DialGuard } from '../policy/dial-guard.ts'
import { now, refreshClock } from '../runtime/clock.ts'
import type { Destination } from '../runtime/handles.ts'
import { type ConnectHandler, openTcp, type RawSocket } from '../runtime/raw-socket.ts'
import { CoarseTimer, type TimerOwner } from '../runtime/timers.ts'
import { type SecureHandler, TlsSocket, UntrustedError } from '../runtime/tls-socket.ts'
import { breakText } from '../tls/alerts.ts'
import { describeUntrusted } from '../tls/untrusted.ts'
import type { UpstreamTls } from '../tls/upstream-tls.ts'
import type { Address } from './discovery/discovery.ts'
import { type Peer, proxyHeader } from './proxy-protocol.ts'

export interface DialTarget {
  readonly address: Address
  /** Dialled too when the address is slow to accept; the first that accepts is taken (RFC 8305). Default: none. */
  readonly rival?: Address | null
  /** Of the cluster: what must not be dialled. */
  readonly guard: DialGuard
  /** null: plain TCP. */
  readonly tls: UpstreamTls | null
  /** Protocols offered in the handshake (`['http/1.1']`); null: none. */
  readonly alpn: readonly string[] | null
  /** Sent before everything else. Default: nothing is. */
  readonly proxyProtocol?: ProxyProtocol | null
  /** It is a check of our own and carries nothing of the application's. Default false. */
  readonly isCheck?: boolean
  /** For TCP and TLS together. */
  readonly timeoutMs: number
  /** Null or absent: TLS begins with the first byte. */
  readonly startTls?: StartTls | null
  /** What the socket reads into; default: the whole buffer that all sockets share. */
  readonly readBuffer?: Buffer
}

/** A peer that is gone without a word is noticed after this silence and ten unanswered probes, one a second. */
const KEEP_ALIVE_MS = 30_000

/** Said by a machine on the way, or by this one, in place of the endpoint. */
const UNREACHABLE: ReadonlySet<string> = new Set(['EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN'])

/** What this machine runs out of before it asks anybody, and the remedy: it says nothing of the endpoint. */
const EXHAUSTED: ReadonlyMap<string, string> = new Map([
  ['EMFILE', 'this process has as many files open as it may, raise the limit of open files (nofile) of its container'],
  ['ENFILE', 'the machine has as many files open as it may, raise fs.file-max of the node'],
  ['ENOBUFS', 'the kernel has no buffer left, give the node more memory'],
  ['ENOMEM', 'the kernel has no memory left, give the node more memory'],
])

/** Dials of this process that came to nothing because of that. */
let exhausted = 0

/** Connections that were not made for want of something on this side, for metrics. */
export function exhaustedDials(): number {
  return exhausted
}

/** How soon after the last byte a peer is asked whether it is still there, once its endpoint has left: gone, it is noticed 10 s later. */
const LEFT_KEEP_ALIVE_MS = 1_000

/** The endpoint of a connection that goes on has left. */
export function watchClosely(socket: RawSocket): void {
  socket.keepAlive(LEFT_KEEP_ALIVE_MS)
}

/** RFC 8305 section 5: the recommended delay between the begins of two attempts. */
const RIVAL_MS = 250

/** TLS that begins in the middle of a connection: one question, one byte in answer, and nothing of the server's behind it. */
export interface StartTls {
  readonly question: Buffer
  /** The byte that says yes. */
  readonly yes: number
  /** What is wrong with any other answer, and the remedy. */
  readonly refused: string
}

export interface DialFailure {
  /**
   * One of connect_refused, connect_timeout, tls_verify_failed, upstream_reset (ended in the middle of the handshake), egress_denied,
   * and overloaded: the endpoint was not asked, for this side has no more of what a connection takes, and nothing is to be held against it.
   */
  readonly reason: Reason
  /** Names the endpoint, what happened and the remedy; no secret. */
  readonly detail: string
  /** Nobody answered in any way, not even with a refusal. Absent: false. */
  readonly isSilent?: boolean
}

export interface DialTimes {
  /** Until TCP was connected, in milliseconds. */
  readonly connectMs: number
  /** Of the TLS handshake; 0 without TLS. */
  readonly tlsMs: number
}

/** Exactly one of the two is called, later than dial() itself, and none after cancel(). */
export interface Dialler {
  /**
   * Set `socket.handler` before returning: bytes may follow at once. The deadline is off from here on.
   * @param address the one that accepted: that of the target, or its rival
   */
  onDialled(socket: RawSocket, times: DialTimes, address: Address): void
  onDialFailed(failure: DialFailure): void
}

/** A dial in progress. */
export interface Dial {
  /** Gives up: nothing is called any more. Without effect once it has ended. */
  cancel(): void
}

/** Begins to dial. Never throws and never calls back before it returned. */
export function dial(target: DialTarget, dialler: Dialler): Dial {
  const { rival = null } = target
  return rival === null ? new DialAttempt(target, dialler) : new DialRace(target, rival, dialler)
}

/** Two addresses of one host: the second is dialled when the first refuses or has not accepted after a moment; who accepts first goes on. */
class DialRace implements Dial {
  readonly #target: DialTarget
  readonly #rival: Address
  readonly #dialler: Dialler
  readonly #begun = refreshClock()
  readonly #start: CoarseTimer
  readonly #first: DialAttempt
  #second: DialAttempt | null = null
  /** Of the first, while the second is still under way. */
  #failure: DialFailure | null = null
  /** One of the two accepted; what goes wrong after that is not for the other to mend. */
  #isAccepted = false

  constructor(target: DialTarget, rival: Address, dialler: Dialler) {
    this.#target = target
    this.#rival = rival
    this.#dialler = dialler
    const first = { onDialled: dialler.onDialled.bind(dialler), onDialFailed: (why: DialFailure) => this.#onFirst(why) }
    this.#first = new DialAttempt(target, first, () => this.#onAccepted(this.#second))
    this.#start = new CoarseTimer(() => this.#dialSecond())
    this.#start.set(this.#begun + RIVAL_MS)
  }

  #dialSecond(): void {
    const dialler = this.#dialler
    const timeoutMs = Math.max(1, this.#target.timeoutMs - (now() - this.#begun))
    const second = {
      onDialled: dialler.onDialled.bind(dialler),
      onDialFailed: (why: DialFailure) => this.#onSecond(why),
    }
    this.#second = new DialAttempt({ ...this.#target, address: this.#rival, timeoutMs }, second, () =>
      this.#onAccepted(this.#first),
    )
  }

  cancel(): void {
    this.#start.release()
    this.#first.cancel()
    this.#second?.cancel()
  }

  #onAccepted(loser: DialAttempt | null): void {
    this.#start.release()
    this.#isAccepted = true
    loser?.cancel()
    this.#failure = null
  }

  #onFirst(failure: DialFailure): void {
    this.#start.release()
    // RFC 8305 section 5: whoever refuses is not waited for.
    if (this.#second === null && !this.#isAccepted && failure.reason === 'connect_refused') this.#dialSecond()
    if (this.#second === null || this.#second.isOver) this.#dialler.onDialFailed(failure)
    else this.#failure = failure
  }

  #onSecond(failure: DialFailure): void {
    // The first decides: it was the choice.
    if (this.#first.isOver) this.#dialler.onDialFailed(this.#failure ?? failure)
  }
}

class DialAttempt implements Dial, ConnectHandler, SecureHandler, TimerOwner {
  readonly #target: DialTarget
  readonly #onAccepted: (() => void) | null
  #dialler: Dialler | null
  #socket: RawSocket | null = null
  readonly #deadline = new CoarseTimer(this)
  readonly #startedAt = refreshClock()
  #connectedAt = 0
  /** What was written before TLS is not with the kernel yet. */
  #isWriting = false

  /** @param onAccepted called when TCP is connected, before the handshake */
  constructor(target: DialTarget, dialler: Dialler, onAccepted: (() => void) | null = null) {
    this.#target = target
    this.#dialler = dialler
    this.#onAccepted = onAccepted
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
    this.#socket = openTcp(destination(address), this, target.readBuffer)
  }

  /** It has told how it ended, or was cancelled. */
  get isOver(): boolean {
    return this.#dialler === null
  }

  onConnect(raw: RawSocket): void {
    const { tls, startTls, proxyProtocol } = this.#target
    this.#connectedAt = refreshClock()
    this.#onAccepted?.()
    raw.tune(KEEP_ALIVE_MS)
    // The header of the PROXY protocol is not encrypted.
    if (proxyProtocol != null) raw.write(this.#header(raw, proxyProtocol))
    if (tls === null) {
      this.#succeed(raw, 0)
      raw.start()
    } else if (startTls != null) {
      raw.write(startTls.question)
      raw.start()
    } else if (raw.backlog > 0) this.#isWriting = true
    else this.#secure(raw, tls)
  }

  #header({ local, remote }: RawSocket, version: ProxyProtocol): Buffer {
    const nobody: Peer = { address: '', port: 0 }
    return proxyHeader(version, this.#target.isCheck ? null : { from: local ?? nobody, to: remote ?? nobody })
  }

  /**
   * The answer to the question whether TLS may begin. A server that sends more than the one byte before TLS begins may have been spoken
   * for by somebody between (CVE-2021-23222).
   */
  onData(chunk: Buffer, length: number): void {
    const { address, startTls, tls } = this.#target
    const raw = this.#socket
    if (startTls == null || tls === null || raw === null || raw.isTls) return
    if (length > 1) {
      this.#fail(
        'tls_verify_failed',
        `${name(address)} sent bytes in plain text before TLS began: somebody may be between`,
      )
    } else if (chunk[0] !== startTls.yes) this.#fail('tls_verify_failed', `${name(address)} ${startTls.refused}`)
    else if (this.#dialler !== null) this.#secure(raw, tls)
  }

  onDrain(): void {
    const { tls } = this.#target
    if (!this.#isWriting || this.#socket === null || tls === null) return
    this.#isWriting = false
    this.#secure(this.#socket, tls)
  }

  #secure(plain: RawSocket, tls: UpstreamTls): void {
    const { address, alpn, readBuffer } = this.#target
    const { context } = tls
    if (context === null) return
    const key = sessionKey(address, tls)
    const serverName = withoutDot(tls.serverName ?? address.host)
    const options = {
      context,
      serverName,
      sentName: isIP(serverName) === 0 ? serverName : null,
      session: tls.session(key),
      alpn,
      isUnverified: tls.isUnverified,
    }
    this.#socket = new TlsSocket(plain, options, this, (session) => tls.keepSession(key, session, context), readBuffer)
  }

  onSecure(socket: TlsSocket): void {
    const { alpn, address, tls } = this.#target
    tls?.agreed(socket.context, socket.group)
    // HTTP/1.1 is what a server without ALPN speaks; of another protocol it has to say so.
    if (alpn !== null && !alpn.includes('http/1.1') && !alpn.includes(String(socket.alpn))) {
      this.#fail(
        'tls_verify_failed',
        `${name(address)} does not speak ${alpn.join(' or ')} (ALPN) over TLS from the first byte`,
      )
    } else this.#succeed(socket, refreshClock() - this.#connectedAt)
  }

  cancel(): void {
    this.#dialler = null
    this.#deadline.release()
    this.#socket?.destroy()
  }

  #succeed(raw: RawSocket, tlsMs: number): void {
    const dialler = this.#dialler
    if (dialler === null) return
    this.#dialler = null
    this.#deadline.release()
    dialler.onDialled(raw, { connectMs: this.#connectedAt - this.#startedAt, tlsMs }, this.#target.address)
  }

  #fail(reason: Reason, detail: string, isSilent = false): void {
    const dialler = this.#dialler
    if (dialler === null) return
    this.#dialler = null
    this.#deadline.release()
    this.#socket?.destroy()
    dialler.onDialFailed({ reason, detail, isSilent })
  }

  onTimer(): void {
    const { address, timeoutMs } = this.#target
    const what = this.#connectedAt === 0 ? 'did not accept a connection' : 'did not finish the TLS handshake'
    this.#fail('connect_timeout', `${name(address)} ${what} within ${timeoutMs} ms`, this.#connectedAt === 0)
  }

  onEnd(): void {
    const isTls = this.#socket?.isTls === true
    const when = isTls ? 'during the TLS handshake' : 'before TLS began'
    this.#fail('upstream_reset', `${name(this.#target.address)} closed the connection ${when}`)
  }

  onClose(error: Error | null): void {
    const { address, tls } = this.#target
    if (error === null) {
      this.onEnd()
      return
    }
    const { code } = error as NodeJS.ErrnoException
    if (tls !== null && error instanceof UntrustedError) {
      const why = describeUntrusted(tls.serverName ?? address.host, error)
      this.#fail('tls_verify_failed', `${name(address)}: ${why}`)
    } else if (this.#connectedAt > 0) {
      this.#fail('upstream_reset', `${name(address)} ended the TLS handshake: ${breakText(error) ?? error.message}`)
    } else if (code === 'ETIMEDOUT') {
      this.#fail('connect_timeout', `${name(address)} did not accept a connection: ETIMEDOUT`, true)
    } else this.#failToConnect(error)
  }

  #failToConnect(error: NodeJS.ErrnoException): void {
    const { code = '', message } = error
    const where = name(this.#target.address)
    const scarce = EXHAUSTED.get(code)
    if (scarce !== undefined && this.#dialler !== null) {
      exhausted++
      this.#fail('overloaded', `${where} was not dialled: ${scarce} (${code})`)
    } else this.#fail('connect_refused', `${where} cannot be connected to: ${code || message}`, UNREACHABLE.has(code))
  }
}

function destination({ ip, port }: Address): Destination {
  return ip.startsWith('/') ? { path: ip } : { address: ip, port }
}

/** A dot at the end keeps DNS from its search list; certificates, SNI (RFC 6066 section 3) and servers know the name without it. */
export function withoutDot(name: string): string {
  return name.endsWith('.') ? name.slice(0, -1) : name
}

function sessionKey(address: Address, tls: UpstreamTls): string {
  return `${address.ip}:${address.port}/${tls.serverName ?? address.host}`
}

function name({ host, ip, port }: Address): string {
  if (ip.startsWith('/')) return `socket '${ip}'`
  const where = `${ip.includes(':') ? `[${ip}]` : ip}:${port}`
  return host === ip ? `endpoint ${where}` : `endpoint '${host}' (${where})`
}
