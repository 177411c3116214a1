/** Dials one endpoint: TCP or TLS, within a deadline, the certificate's chain and name verified; tells why when it fails. */
import { connect, isIP, type NetConnectOpts, type Socket } from 'node:net'
import type { ConnectionOptions, PeerCertificate, TLSSocket } from 'node:tls'
import type { ProxyProtocol } from '../../common/proxy-config.ts'
import type { Reason } from '../../common/reasons.ts'
import type { DialGuard } from '../policy/dial-guard.ts'
import { now, refreshClock } from '../runtime/clock.ts'
import { openTcp, openTls, type RawSocket, type SocketHandler, upgradeTls } from '../runtime/raw-socket.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import { breakText } from '../tls/alerts.ts'
import { type Chain, describeUntrusted, untrustedChain } from '../tls/untrusted.ts'
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
export function watchClosely({ socket }: RawSocket): void {
  socket.setKeepAlive(true, LEFT_KEEP_ALIVE_MS)
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

class DialAttempt implements Dial, SocketHandler {
  readonly #target: DialTarget
  readonly #onAccepted: () => void
  #dialler: Dialler | null
  #socket: RawSocket | null = null
  /** Below the TLS that is not there yet. */
  #plain: Socket | null = null
  readonly #deadline: CoarseTimer
  readonly #startedAt = refreshClock()
  #connectedAt = 0
  /** Null when it is trusted. */
  #chain: Chain | null = null

  /** @param onAccepted called when TCP is connected, before the handshake */
  constructor(target: DialTarget, dialler: Dialler, onAccepted: () => void = () => {}) {
    this.#target = target
    this.#dialler = dialler
    this.#onAccepted = onAccepted
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
      else if (target.proxyProtocol != null) this.#tlsBehindHeader(address, tls)
      else this.#dialTls(address, tls)
    } catch (error) {
      setImmediate(() => this.#failToConnect(error as NodeJS.ErrnoException))
    }
  }

  /** It has told how it ended, or was cancelled. */
  get isOver(): boolean {
    return this.#dialler === null
  }

  #dialTcp(address: Address): void {
    const raw = openTcp(connectOptions(address), this, this.#target.readBuffer)
    this.#socket = raw
    raw.socket.once('connect', () => {
      this.#accepted()
      const header = this.#header(raw.socket)
      if (header !== null) raw.write(header)
      this.#succeed(raw, 0)
    })
  }

  /** The header of the PROXY protocol is not encrypted. */
  #tlsBehindHeader(address: Address, tls: UpstreamTls): void {
    const plain = connect({ ...connectOptions(address), allowHalfOpen: true })
    this.#plain = plain
    let broken: Error | null = null
    const onClose = (): void => this.onClose(broken)
    plain.on('error', (error) => {
      broken = error
    })
    plain.on('close', onClose)
    plain.once('connect', () => {
      // From here on the end of the connection is that of TLS.
      plain.off('close', onClose)
      this.#accepted()
      const header = this.#header(plain)
      if (header !== null) plain.write(header)
      this.#secure(upgradeTls(plain, this.#tlsOptions(address, tls), this), address, tls)
    })
  }

  #header(socket: Socket): Buffer | null {
    const { proxyProtocol = null, isCheck = false } = this.#target
    if (proxyProtocol === null) return null
    // Each two asks the kernel.
    const { localAddress, localPort, remoteAddress, remotePort } = socket
    const from: Peer = { address: localAddress ?? '', port: localPort ?? 0 }
    const to: Peer = { address: remoteAddress ?? '', port: remotePort ?? 0 }
    return proxyHeader(proxyProtocol, isCheck ? null : { from, to })
  }

  #accepted(): void {
    this.#connectedAt = refreshClock()
    this.#onAccepted()
  }

  #dialTls(address: Address, tls: UpstreamTls): void {
    const raw = openTls(
      { ...connectOptions(address), ...this.#tlsOptions(address, tls) },
      this,
      this.#target.readBuffer,
    )
    raw.socket.once('connect', () => {
      this.#accepted()
      raw.socket.setNoDelay(true)
      raw.socket.setKeepAlive(true, KEEP_ALIVE_MS)
    })
    this.#secure(raw, address, tls)
  }

  /** A server that sends more than the one byte before TLS begins may have been spoken for by somebody between (CVE-2021-23222). */
  #startTls(address: Address, tls: UpstreamTls, { question, yes, refused }: StartTls): void {
    const where = name(address)
    const plain = connect({ ...connectOptions(address), allowHalfOpen: true })
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
      this.#accepted()
      const header = this.#header(plain)
      if (header !== null) plain.write(header)
      plain.write(question)
    })
  }

  #tlsOptions(address: Address, tls: UpstreamTls): ConnectionOptions {
    const serverName = withoutDot(tls.serverName ?? address.host)
    return {
      secureContext: tls.context ?? undefined,
      session: tls.session(sessionKey(address, tls)),
      // RFC 6066 section 3: an IP address is not a server name. It is verified against the IP SANs all the same.
      servername: isIP(serverName) === 0 ? serverName : '',
      checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
        process.getBuiltinModule('node:tls').checkServerIdentity(serverName, certificate),
      // Said here because NODE_TLS_REJECT_UNAUTHORIZED=0 would turn it off silently.
      rejectUnauthorized: !tls.isUnverified,
      ALPNProtocols: this.#target.alpn === null ? undefined : [...this.#target.alpn],
    }
  }

  #secure(raw: RawSocket & { readonly socket: TLSSocket }, address: Address, tls: UpstreamTls): void {
    const key = sessionKey(address, tls)
    const { context } = tls
    this.#socket = raw
    const { socket } = raw
    // Before Node verifies, and closes what it does not trust: afterwards the chain cannot be asked for.
    socket.prependOnceListener('secure', () => {
      this.#chain = untrustedChain(socket)
    })
    socket.once('secureConnect', () => {
      const { name: group = null } = (socket.getEphemeralKeyInfo() ?? {}) as { readonly name?: string }
      tls.agreed(context, group)
      const { alpn, address: at } = this.#target
      const chosen = socket.alpnProtocol
      // HTTP/1.1 is what a server without ALPN speaks; of another protocol it has to say so.
      if (alpn !== null && !alpn.includes('http/1.1') && !alpn.includes(String(chosen))) {
        this.#fail(
          'tls_verify_failed',
          `${name(at)} does not speak ${alpn.join(' or ')} (ALPN) over TLS from the first byte`,
        )
      } else this.#succeed(raw, refreshClock() - this.#connectedAt)
    })
    // TLS 1.3 sends its tickets after the handshake, so this outlives the dial.
    socket.on('session', (session: Buffer) => tls.keepSession(key, session, context))
  }

  cancel(): void {
    this.#dialler = null
    this.#deadline.release()
    this.#destroy()
  }

  #destroy(): void {
    this.#socket?.destroy()
    this.#plain?.destroy()
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
    this.#destroy()
    dialler.onDialFailed({ reason, detail, isSilent })
  }

  #onDeadline(): void {
    const { address, timeoutMs } = this.#target
    const what = this.#connectedAt === 0 ? 'did not accept a connection' : 'did not finish the TLS handshake'
    this.#fail('connect_timeout', `${name(address)} ${what} within ${timeoutMs} ms`, this.#connectedAt === 0)
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
    const { code } = error as NodeJS.ErrnoException
    const untrusted = (this.#socket?.socket as TLSSocket | undefined)?.authorizationError
    if (tls !== null && untrusted) {
      const why = describeUntrusted(tls.serverName ?? address.host, error, this.#chain)
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

function connectOptions({ ip, port }: Address): NetConnectOpts {
  if (ip.startsWith('/')) return { path: ip }
  return { host: ip, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
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
