/** One connection of the application: let in by the limits, connected to an endpoint, relayed, and told of when it has ended. */
import type { Reason } from '../../../common/reasons.ts'
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import { whyLimited } from '../../policy/rate-limit.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { askWhetherGone } from '../../runtime/half-close.ts'
import { dropRest, type RawSocket, type SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { breakText } from '../../tls/alerts.ts'
import {
  type Dial,
  type DialFailure,
  type Dialler,
  type DialTimes,
  dial,
  type StartTls,
  watchClosely,
} from '../../upstream/connector.ts'
import { DialAttempts, whyNoneFree, whyQueueFull, whyUnready } from '../../upstream/dial-attempts.ts'
import type { Address } from '../../upstream/discovery/discovery.ts'
import { Endpoint, type Tenant } from '../../upstream/endpoint.ts'
import { Relay, type RelayEnd, type RelayOwner } from './relay.ts'
import type { TcpSnapshot } from './snapshot.ts'

/** How a connection ended: a reason code when something went wrong, one of three orderly ends, or that its endpoint has left. */
export type TcpEnd = Reason | 'client_closed' | 'upstream_closed' | 'idle_timeout' | 'endpoint_left'

/** What is known of a connection when it has ended. */
export interface TcpRecord {
  readonly end: TcpEnd
  /** What happened, for a person; null for an orderly end. */
  readonly detail: string | null
  readonly upstream: string
  /** `ip:port`; null when none was dialled. */
  readonly endpoint: string | null
  /** Dials. */
  readonly attempts: number
  /** From the application, and to it. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** Waited for the rate limit, for discovery and for a free connection. */
  readonly queueMs: number
  /** Until TCP was connected, and then for the TLS handshake; 0 when it never was. Of the dial that succeeded. */
  readonly connectMs: number
  readonly tlsMs: number
  readonly durationMs: number
}

export interface SessionOwner {
  /** The newest one: asked for the idle time. */
  readonly snapshot: TcpSnapshot
  onSessionEnd(session: TcpSession, record: TcpRecord): void
}

/** What a protocol does on top of TCP at the begin of a connection. */
export interface Greeter {
  /** How TLS begins in the middle of a connection; null: with the first byte. */
  readonly startTls: StartTls | null
  /** Protocols offered in the TLS handshake; null: none. */
  readonly alpn: readonly string[] | null
  /** Does at a connected endpoint what comes before the bytes of the application go through. Calls back once, later. */
  greet(upstream: RawSocket, address: Address, timeoutMs: number, greeted: Greeted): Dial
  /** What the application is told in place of a reset. */
  refusal(reason: Reason, detail: string): Buffer
  /** Whether a connection that no endpoint takes for this reason waits for one that does, as long as timeouts.connect. */
  isPatient(reason: Reason): boolean
  /** What the application is told when its endpoint is gone in the middle of the connection; null: nothing can be said now. */
  farewell(): Buffer | null
}

export interface Greeted {
  /** `welcome`: for the application, before anything else. */
  onGreeted(welcome: Buffer): void
  /** The connection is closed. `isAlive`: the endpoint answered, and another one would say the same. */
  onGreetingFailed(failure: DialFailure, response: Buffer, isAlive: boolean): void
}

/**
 * Before there is an upstream, reading stops when so much has come: with less, an application that resets its connection is seen.
 */
const EARLY_BYTES = 4 * 1024

/** Of a connection that was never made. */
const NO_TIMES: DialTimes = { connectMs: 0, tlsMs: 0 }

/** Whether an application that ended without a word is still there is asked so soon, and again and again. */
const LOOK_SOON_MS = 50
const LOOK_AGAIN_MS = 1_000

/** Of a patient protocol, the first and the longest time between two rounds of dials; each is up to half longer by chance. */
const REST_MS = 50
const MAX_REST_MS = 500

// delayed   => held       when the rate limit lets it go on
// held      => queued     when discovery has found endpoints
// queued    => dialling   when it has one of the upstream's connections
// dialling  => queued     when the endpoint fails, or has left; it keeps its connection and goes on to another endpoint at once
// dialling  => greeting   when the endpoint is connected and the protocol has something to say first
// dialling  => relaying   when the endpoint is connected
// greeting  => relaying   when it has been said
// greeting  => queued     when that fails, as after a failed dial
// queued    => resting    when no endpoint takes the connection and the protocol is patient
// resting   => queued     after a moment, with every endpoint to be tried again
// any       => ended
type Phase =
  | { readonly kind: 'delayed' }
  | { readonly kind: 'held'; readonly cancel: () => void }
  | { readonly kind: 'queued' }
  | { readonly kind: 'resting' }
  | { readonly kind: 'dialling'; readonly dial: Dial; readonly endpoint: Endpoint }
  | { readonly kind: 'greeting'; readonly dial: Dial; readonly upstream: RawSocket; readonly endpoint: Endpoint }
  | { readonly kind: 'relaying'; readonly endpoint: Endpoint; readonly relay: Relay }
  | { readonly kind: 'ended' }

// The phases that know nothing are the same for every connection.
const DELAYED: Phase = { kind: 'delayed' }
const QUEUED: Phase = { kind: 'queued' }
const RESTING: Phase = { kind: 'resting' }
const ENDED: Phase = { kind: 'ended' }

export class TcpSession implements SocketHandler, Waiter, Dialler, Greeted, Tenant, RelayOwner {
  nextWaiter: Waiter | null = null
  previousWaiter: Waiter | null = null
  waitsAt: Bulkhead | null = null

  readonly #owner: SessionOwner
  readonly #snapshot: TcpSnapshot
  readonly #client: RawSocket
  readonly #greeter: Greeter | null
  #response: Buffer | null = null
  #upstream: RawSocket | null = null
  /** Why it must end; null while it need not. */
  #evicted: string | null = null
  /** Null: it never had to wait. */
  #timer: CoarseTimer | null = null
  readonly #openedAt = now()
  #phase: Phase = DELAYED
  /** What the application sent before there was an upstream. */
  #early: Buffer | null = null
  #clientEnded = false
  /** Null: there was no need to look whether the application is gone. */
  #look: CoarseTimer | null = null
  readonly #attempts: DialAttempts
  #lastFailure: DialFailure | null = null
  #rests = 0
  #hasSlot = false
  #dialledAt = 0
  #times = NO_TIMES

  /** Call start() next. */
  constructor(owner: SessionOwner, client: RawSocket, greeter: Greeter | null = null) {
    this.#owner = owner
    this.#client = client
    this.#greeter = greeter
    this.#snapshot = owner.snapshot
    this.#attempts = new DialAttempts(this.#snapshot.cluster)
    client.handler = this
  }

  get bytesIn(): number {
    return this.#client.bytesRead
  }

  get bytesOut(): number {
    return this.#client.bytesWritten
  }

  start(): void {
    const waitMs = this.#snapshot.rateLimit?.admit(this.#openedAt) ?? 0
    if (waitMs < 0) this.#refuse('rate_limited', whyLimited(-waitMs))
    else if (waitMs > 0) this.#wake(this.#openedAt + waitMs)
    else this.#begin()
  }

  /** Goes on at that time, unless it does before. */
  #wake(at: number): void {
    this.#timer ??= new CoarseTimer(() => this.#onTimer())
    this.#timer.set(at)
  }

  /** Ends it now, as a failure that both peers see. */
  destroy(): void {
    if (this.#phase.kind === 'relaying') this.#phase.relay.destroy()
    else this.#refuse('draining', 'the sidecar is shutting down')
  }

  // delayed => held
  #begin(): void {
    this.#snapshot.cluster.budget.deposit(now())
    this.#hold()
  }

  // delayed, queued => held
  #hold(): void {
    if (this.#snapshot.cluster.isReady) this.#queue()
    else this.#holdUntilReady()
  }

  #holdUntilReady(): void {
    const { cluster, timeouts } = this.#snapshot
    // The phase first: a cluster that closes meanwhile answers within the call.
    let cancel = () => {}
    this.#phase = { kind: 'held', cancel: () => cancel() }
    cancel = cluster.whenReady(timeouts.connectMs, (ready) => {
      if (this.#phase.kind !== 'held') return
      refreshClock()
      if (ready) this.#queue()
      else this.#refuse(cluster.whyUnready, whyUnready(cluster))
    })
  }

  // held => queued
  #queue(): void {
    this.#phase = QUEUED
    const { cluster, timeouts } = this.#snapshot
    if (cluster.connections.tryAcquire()) this.onSlot()
    else if (cluster.connections.wait(this)) this.#wake(now() + timeouts.connectMs)
    else this.#refuse('queue_full', whyQueueFull(cluster))
  }

  /** A connection to the upstream is ours to make. */
  onSlot(): void {
    const { cluster } = this.#snapshot
    this.#timer?.clear()
    if (!cluster.isReady) {
      // A changed config looks elsewhere, and has not found anything yet.
      cluster.connections.release()
      this.#hold()
      return
    }
    this.#hasSlot = true
    this.#dialledAt = now()
    this.#dial()
  }

  // queued => dialling
  #dial(): void {
    const { cluster, timeouts } = this.#snapshot
    const picked = this.#attempts.next(this.#lastFailure)
    if (!(picked instanceof Endpoint)) {
      this.#restOrRefuse(picked)
      return
    }
    this.#attempts.begin(picked)
    this.#response = null
    const target = {
      address: picked,
      guard: cluster.guard,
      rival: cluster.rivalOf(picked, now()),
      tls: cluster.tls,
      alpn: this.#greeter?.alpn ?? null,
      proxyProtocol: cluster.config.proxyProtocol ?? null,
      timeoutMs: timeouts.connectMs,
      startTls: this.#greeter?.startTls ?? null,
    }
    picked.tenants.add(this)
    this.#phase = { kind: 'dialling', dial: dial(target, this), endpoint: picked }
  }

  // queued => resting
  #restOrRefuse(failure: DialFailure): void {
    const wait = Math.min(MAX_REST_MS, REST_MS * 2 ** this.#rests) * (1 + Math.random() / 2)
    const isLate = now() + wait >= this.#dialledAt + this.#snapshot.timeouts.connectMs
    if (isLate || this.#greeter?.isPatient(failure.reason) !== true) {
      this.#refuse(failure.reason, failure.detail)
      return
    }
    this.#rests++
    this.#phase = RESTING
    this.#attempts.forget()
    this.#wake(now() + wait)
  }

  // dialling => queued
  onDialFailed(failure: DialFailure): void {
    if (this.#phase.kind !== 'dialling' && this.#phase.kind !== 'greeting') return
    this.#phase.endpoint.tenants.delete(this)
    this.#phase = QUEUED
    const isOurs = failure.reason === 'overloaded'
    // One that is alive and not the one that is wanted has not failed: its breaker must not keep it out when it is.
    this.#attempts.end(isOurs || failure.reason === 'no_healthy_endpoint' ? 'abandoned' : 'failure')
    if (!isOurs) this.#attempts.blame(failure)
    this.#lastFailure = failure
    if (this.#attempts.isLeft) this.#dial()
    else this.#restOrRefuse(failure)
  }

  // dialling => relaying | greeting
  onDialled(upstream: RawSocket, times: DialTimes, address: Address): void {
    if (this.#phase.kind !== 'dialling') return
    const chosen = this.#phase.endpoint
    const endpoint = this.#attempts.moveTo(address)
    this.#times = times
    if (this.#greeter === null && endpoint === chosen) {
      this.#relay(upstream, endpoint)
      return
    }
    chosen.tenants.delete(this)
    if (this.#greeter === null) {
      this.#relay(upstream, endpoint)
      return
    }
    const greeting = this.#greeter.greet(upstream, endpoint, this.#snapshot.timeouts.connectMs, this)
    this.#phase = { kind: 'greeting', dial: greeting, upstream, endpoint }
  }

  // greeting => queued
  onGreetingFailed(failure: DialFailure, response: Buffer, isAlive: boolean): void {
    if (this.#phase.kind !== 'greeting') return
    this.#response = response
    if (!isAlive) {
      this.onDialFailed(failure)
      return
    }
    this.#phase = QUEUED
    this.#attempts.end('success')
    this.#refuse(failure.reason, failure.detail)
  }

  // greeting => relaying
  onGreeted(welcome: Buffer): void {
    if (this.#phase.kind !== 'greeting') return
    const { upstream, endpoint } = this.#phase
    this.#client.write(welcome)
    this.#relay(upstream, endpoint)
  }

  #relay(upstream: RawSocket, endpoint: Endpoint): void {
    this.#attempts.succeed()
    endpoint.tenants.add(this)
    this.#upstream = upstream
    const relay = new Relay(this, this.#client, upstream)
    this.#phase = { kind: 'relaying', endpoint, relay }
    const early = this.#early
    this.#early = null
    this.#timer?.release()
    this.#look?.release()
    relay.start(early, this.#clientEnded)
  }

  get idleMs(): number | null {
    return this.#owner.snapshot.timeouts.idleMs
  }

  farewell(): Buffer | null {
    return this.#greeter === null ? null : this.#greeter.farewell()
  }

  onUpstreamClosed(): void {
    if (this.#phase.kind !== 'relaying') return
    const { endpoint } = this.#phase
    endpoint.leave()
    endpoint.tenants.delete(this)
    this.#releaseSlot()
  }

  onEndpointLeft(): void {
    if (this.#phase.kind === 'dialling') this.#dialElsewhere(this.#phase.endpoint, this.#phase.dial)
    else if (this.#upstream !== null) watchClosely(this.#upstream)
  }

  // dialling => queued
  #dialElsewhere(endpoint: Endpoint, begun: Dial): void {
    let isAlone = true
    for (const other of this.#snapshot.cluster.endpoints) isAlone &&= other.retired
    if (isAlone) return
    endpoint.tenants.delete(this)
    begun.cancel()
    this.#phase = QUEUED
    this.#attempts.end('abandoned')
    this.#dial()
  }

  evict(why: string): void {
    // A dial has a deadline of its own.
    if (this.#phase.kind !== 'relaying') return
    this.#evicted = why
    this.destroy()
  }

  onRelayEnd(end: RelayEnd): void {
    if (end.kind === 'closed') this.#ended(end.by === 'client' ? 'client_closed' : 'upstream_closed', null)
    else if (end.kind === 'idle') this.#ended('idle_timeout', null)
    else if (this.#evicted !== null) this.#ended('endpoint_left', this.#evicted)
    else if (end.kind === 'destroyed') this.#ended('draining', 'the sidecar is shutting down')
    else {
      const text = `the ${end.by === 'client' ? 'application' : 'upstream'} broke the connection`
      const why = breakText(end.error)
      this.#ended(end.by === 'client' ? 'client_gone' : 'upstream_reset', why === null ? text : `${text}: ${why}`)
    }
  }

  // What the client does before there is an upstream.

  onData(chunk: Buffer, length: number): void {
    const read = Buffer.allocUnsafe(length)
    chunk.copy(read, 0, 0, length)
    this.#early = this.#early === null ? read : Buffer.concat([this.#early, read])
    if (this.#early.length >= EARLY_BYTES) this.#client.pause()
  }

  onEnd(): void {
    this.#clientEnded = true
    // What it has sent before is for the upstream, whether it waits for an answer or not.
    if (this.#early === null) this.#lookAgain(LOOK_SOON_MS)
  }

  #lookAgain(ms: number): void {
    this.#look ??= new CoarseTimer(() => askWhetherGone(this.#client, (isGone) => this.#onLooked(isGone)))
    this.#look.set(now() + ms)
  }

  /** It may wait for a server that speaks first. One that is gone must not keep others from its place. */
  #onLooked(isGone: boolean): void {
    refreshClock()
    if (this.#phase.kind === 'relaying' || this.#phase.kind === 'ended') return
    if (!isGone) {
      this.#lookAgain(LOOK_AGAIN_MS)
      return
    }
    this.onClose(null)
    this.#client.destroy()
  }

  onDrain(): void {}

  onClose(error: Error | null): void {
    const code = (error as NodeJS.ErrnoException | null)?.code
    this.#abort()
    this.#ended(
      'client_gone',
      `the application left before there was a connection to the upstream${code === undefined ? '' : ` (${code})`}`,
    )
  }

  #onTimer(): void {
    if (this.#phase.kind === 'delayed') {
      this.#begin()
      return
    }
    if (this.#phase.kind === 'resting') {
      this.#phase = QUEUED
      this.#dial()
      return
    }
    const { cluster, timeouts } = this.#snapshot
    this.#refuse('queue_full', whyNoneFree(cluster, timeouts.connectMs))
  }

  /** Ends a connection that has no upstream, with a reset: an orderly end would look like an answer of nothing. */
  #refuse(reason: Reason, detail: string): void {
    if (this.#phase.kind === 'ended') return
    this.#abort()
    this.#ended(reason, detail)
    if (this.#greeter === null) {
      this.#client.reset()
      return
    }
    const client = this.#client
    dropRest(client)
    client.write(this.#response ?? this.#greeter.refusal(reason, detail))
    client.end()
  }

  /** Takes back whatever the phase before the relay has begun. */
  #abort(): void {
    const phase = this.#phase
    const { cluster, rateLimit } = this.#snapshot
    if (phase.kind === 'delayed' && this.#timer !== null) rateLimit?.giveBack()
    else if (phase.kind === 'held') phase.cancel()
    else if (phase.kind === 'queued') cluster.connections.cancel(this)
    else if (phase.kind === 'dialling' || phase.kind === 'greeting') {
      phase.dial.cancel()
      phase.endpoint.tenants.delete(this)
      this.#attempts.end('abandoned')
    }
  }

  #releaseSlot(): void {
    if (!this.#hasSlot) return
    this.#hasSlot = false
    this.#snapshot.cluster.connections.release()
  }

  #ended(end: TcpEnd, detail: string | null): void {
    if (this.#phase.kind === 'ended') return
    this.#phase = ENDED
    this.#timer?.release()
    this.#look?.release()
    this.#early = null
    this.#releaseSlot()
    const at = now()
    this.#owner.onSessionEnd(this, {
      end,
      detail,
      upstream: this.#snapshot.cluster.name,
      endpoint: this.#attempts.last?.name ?? null,
      attempts: this.#attempts.count,
      bytesIn: this.#client.bytesRead,
      bytesOut: this.#client.bytesWritten,
      queueMs: (this.#dialledAt === 0 ? at : this.#dialledAt) - this.#openedAt,
      connectMs: this.#times.connectMs,
      tlsMs: this.#times.tlsMs,
      durationMs: at - this.#openedAt,
    })
  }
}
