/** Gets a session its connection: one that waits ready, or a new one within the bounds of the upstream and the connect time-out. */
import type { Reason } from '../../../common/reasons.ts'
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { Dial, DialTimes } from '../../upstream/connector.ts'
import { DialAttempts, whyNoneFree, whyQueueFull, whyUnready } from '../../upstream/dial-attempts.ts'
import { Endpoint } from '../../upstream/endpoint.ts'
import { type LoginFailure, type LoginVisitor, logIn } from '../../upstream/redis/login.ts'
import { evictSpare, RedisPool } from '../../upstream/redis-pool.ts'
import type { RedisSnapshot } from './snapshot.ts'

export interface Acquirer {
  /** `socket` holds a slot of the cluster, and `endpoint` counts it: give both back when it is closed. Set its handler at once. */
  onConnection(socket: RawSocket, endpoint: Endpoint, times: DialTimes): void
  /** @param reply the server's own words when it refused the credential */
  onNoConnection(reason: Reason, detail: string, reply: string | null): void
}

const NO_TIMES: DialTimes = { connectMs: 0, tlsMs: 0 }

// held      => queued     when discovery has found endpoints, and they may be used
// queued    => dialling   when it has one of the upstream's connections
// dialling  => dialling   when the endpoint fails and another one is there
// dialling  => held       when the endpoint fails and discovery looks for the one in its place
// any       => over
type Phase = 'held' | 'queued' | 'dialling' | 'over'

/** One search for a connection; exactly one of the acquirer's methods is called, none after cancel(). */
export class Acquisition implements Waiter, LoginVisitor {
  nextWaiter: Waiter | null = null
  previousWaiter: Waiter | null = null
  waitsAt: Bulkhead | null = null

  readonly #snapshot: RedisSnapshot
  readonly #acquirer: Acquirer
  readonly #timer: CoarseTimer
  readonly #deadline: number
  readonly #attempts: DialAttempts
  #phase: Phase = 'held'
  #cancelHold = () => {}
  #dial: Dial | null = null
  #hasSlot = false
  #failed: LoginFailure | null = null

  constructor(snapshot: RedisSnapshot, acquirer: Acquirer) {
    this.#snapshot = snapshot
    this.#acquirer = acquirer
    this.#attempts = new DialAttempts(snapshot.cluster)
    this.#deadline = now() + snapshot.timeouts.connectMs
    this.#timer = new CoarseTimer(() => this.#onTimer())
  }

  start(): void {
    const { cluster, credential, timeouts } = this.#snapshot
    cluster.budget.deposit(now())
    if (credential !== null && credential.line === null) {
      this.#fail('auth_unavailable', credential.failure ?? 'the credential is not available')
      return
    }
    if (cluster.isReady) this.#queue()
    else this.#hold(timeouts.connectMs)
  }

  #hold(ms: number): void {
    const { cluster } = this.#snapshot
    this.#phase = 'held'
    this.#cancelHold = cluster.whenReady(ms, (ready) => {
      if (this.#phase !== 'held') return
      refreshClock()
      if (ready) this.#queue()
      else this.#fail(cluster.whyUnready, cluster.discoveryFailure ?? this.#failed?.detail ?? whyUnready(cluster))
    })
  }

  /** Gives everything back and begins again when discovery is sure of an endpoint. */
  #holdAgain(): void {
    this.#snapshot.cluster.connections.release()
    this.#hasSlot = false
    this.#attempts.forget()
    this.#hold(Math.max(1, this.#deadline - now()))
  }

  cancel(): void {
    if (this.#phase === 'over') return
    const { cluster } = this.#snapshot
    if (this.#phase === 'held') this.#cancelHold()
    else if (this.#phase === 'queued') cluster.connections.cancel(this)
    else {
      this.#dial?.cancel()
      this.#attempts.end('abandoned')
    }
    this.#over()
  }

  // held => queued
  #queue(): void {
    this.#phase = 'queued'
    const { cluster } = this.#snapshot
    const { connections } = cluster
    const picked = cluster.pick(now())
    const ready = typeof picked === 'string' ? null : RedisPool.of(cluster, picked).take()
    if (typeof picked !== 'string' && ready !== null) {
      this.#attempts.begin(picked)
      this.#hasSlot = true
      this.#succeed(ready, picked, NO_TIMES)
      return
    }
    if (connections.tryAcquire() || (evictSpare(cluster) && connections.tryAcquire())) this.onSlot()
    else if (connections.wait(this)) this.#timer.set(this.#deadline)
    else this.#fail('queue_full', whyQueueFull(cluster))
  }

  /** A connection to the upstream is ours to make. */
  onSlot(): void {
    this.#timer.clear()
    this.#hasSlot = true
    refreshClock()
    this.#next()
  }

  // queued => dialling, dialling => dialling
  #next(): void {
    const { cluster } = this.#snapshot
    // A changed config looks elsewhere, or a failover is under way: nobody knows yet where to.
    if (!cluster.isReady && this.#deadline > now()) {
      this.#holdAgain()
      return
    }
    const failed = this.#failed
    const picked = this.#attempts.next(failed, failed !== null && !this.#attempts.isFirst)
    if (!(picked instanceof Endpoint)) {
      this.#fail(picked.reason, picked.detail, picked === failed ? failed.reply : null)
      return
    }
    this.#phase = 'dialling'
    this.#attempts.begin(picked)
    const target = {
      address: picked,
      tls: cluster.tls,
      alpn: null,
      guard: cluster.guard,
      proxyProtocol: cluster.config.proxyProtocol ?? null,
      timeoutMs: Math.max(1, Math.round(this.#deadline - now())),
    }
    this.#dial = logIn(target, cluster.login ?? { credential: this.#snapshot.credential, role: null }, this)
  }

  onLoggedIn(socket: RawSocket, times: DialTimes): void {
    this.#succeed(socket, this.#attempts.last as Endpoint, times)
  }

  onLoginFailed(failure: LoginFailure): void {
    const { cluster } = this.#snapshot
    const attempts = this.#attempts
    // A credential that is wrong says nothing of the endpoint, nor does what this side is short of.
    const isOurs = failure.reason === 'overloaded'
    const saysNothing = isOurs || failure.reason === 'auth_unavailable'
    attempts.end(saysNothing ? 'abandoned' : 'failure')
    this.#failed = failure
    if (saysNothing) {
      if (!isOurs) attempts.last?.failed(failure.reason, failure.detail)
      this.#fail(failure.reason, failure.detail, failure.reply)
      return
    }
    attempts.blame(failure)
    // One that is not trusted fails again, and with the same words.
    const isFinal = cluster.isFollowed && failure.reason === 'tls_verify_failed'
    if (attempts.isLeft && now() < this.#deadline && !isFinal) this.#next()
    else this.#fail(failure.reason, failure.detail, failure.reply)
  }

  #onTimer(): void {
    const { cluster, timeouts } = this.#snapshot
    cluster.connections.cancel(this)
    this.#fail('queue_full', whyNoneFree(cluster, timeouts.connectMs))
  }

  #succeed(socket: RawSocket, endpoint: Endpoint, times: DialTimes): void {
    this.#attempts.succeed()
    this.#hasSlot = false
    this.#over()
    RedisPool.of(this.#snapshot.cluster, endpoint).replenish(this.#snapshot.timeouts.connectMs)
    this.#acquirer.onConnection(socket, endpoint, times)
  }

  #fail(reason: Reason, detail: string, reply: string | null = null): void {
    this.#over()
    this.#acquirer.onNoConnection(reason, detail, reply)
  }

  #over(): void {
    this.#phase = 'over'
    this.#timer.release()
    if (this.#hasSlot) this.#snapshot.cluster.connections.release()
    this.#hasSlot = false
  }
}
