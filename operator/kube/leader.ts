/** Leader election by a Lease: of all replicas one writes, and it stops writing the moment it cannot be sure any more. */
import { type Log, silentLog } from '../../common/log.ts'
import type { KubeClient } from './client.ts'
import { type Clock, sleep, systemClock, type Timer } from './clock.ts'
import { hasStatus } from './errors.ts'
import type { KubeObject } from './objects.ts'

/** Others may take the lease this long after they saw its last renewal. */
const LEASE_MS = 15_000
/** We stop when no renewal succeeded for this long; below LEASE_MS, so that there are never two. */
const RENEW_DEADLINE_MS = 10_000

export interface LeaderOptions {
  readonly client: KubeClient
  readonly namespace: string
  /** Name of the Lease. */
  readonly name: string
  /** Who we are, different in each process: the pod's name and something random. */
  readonly identity: string
  /** Between tries. Default 2 s. */
  readonly retryMs?: number
  readonly clock?: Clock
  readonly random?: () => number
  readonly log?: Log
  /**
   * Whether the holder of this identity cannot write any more, whatever the lease says. Its lease is then taken at once: after a helm
   * uninstall the old replicas have lost the right to give it back. Default: the lease has the last word.
   */
  readonly isGone?: (identity: string, signal: AbortSignal) => Promise<boolean>
  /** Told each change, with the signal that aborts when it ends again. */
  readonly onChange?: (isLeading: boolean) => void
}

interface LeaseSpec {
  readonly holderIdentity?: string
  readonly leaseDurationSeconds?: number
  readonly acquireTime?: string
  readonly renewTime?: string
  readonly leaseTransitions?: number
}
type Lease = KubeObject & { readonly spec?: LeaseSpec }

// standby => leading   when the lease is free, expired by our own clock, ours, or its holder is gone
// leading => standby   when somebody else holds it, or no renewal succeeded within RENEW_DEADLINE_MS
// leading => released  at stop()
type State =
  | { readonly kind: 'standby' }
  | {
      readonly kind: 'leading'
      readonly term: AbortController
      readonly done: Promise<void>
      deadline: Timer
      until: number
      wallUntil: number
    }

/** Runs `lead` while this process holds the lease. */
export class LeaderElector {
  readonly #options: LeaderOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #retryMs: number
  readonly #stopped = new AbortController()
  readonly #lead: (signal: AbortSignal) => Promise<void>
  #state: State = { kind: 'standby' }
  /** The renewal that we saw last and when, by our clock: clocks of machines differ, so the times in the lease are never compared with ours. */
  #seen: { readonly version: string; readonly at: number } | undefined
  #lease: Lease | undefined
  #loop: Promise<void> | undefined
  #hasTried = false

  /** `lead` starts the writing half and returns when it has stopped; its signal aborts when the lease is lost. */
  constructor(options: LeaderOptions, lead: (signal: AbortSignal) => Promise<void>) {
    this.#options = options
    this.#lead = lead
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    this.#retryMs = options.retryMs ?? 2_000
  }

  /** Whether writing is allowed at this moment, by both clocks: the monotonic one stands still while a machine sleeps. */
  get isLeading(): boolean {
    const state = this.#state
    return (
      state.kind === 'leading' &&
      !state.term.signal.aborted &&
      this.#clock.now() < state.until &&
      this.#clock.wall() < state.wallUntil
    )
  }

  /** Whether the lease was looked at once, whatever came of it. */
  get hasTried(): boolean {
    return this.#hasTried
  }

  start(): void {
    this.#loop ??= this.#run()
  }

  /** Stops leading, waits for the writing half to end, and gives the lease back so that another replica takes over at once. */
  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#loop
    const state = this.#state
    if (state.kind !== 'leading') return
    await this.#end(state, 'shutting down')
    await this.#release()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      await this.#tryOnce(signal)
      this.#hasTried = true
      const jitter = 0.8 + 0.4 * (this.#options.random ?? Math.random)()
      await sleep(this.#clock, this.#state.kind === 'leading' ? this.#retryMs : this.#retryMs * jitter, signal)
    }
  }

  async #tryOnce(signal: AbortSignal): Promise<void> {
    const state = this.#state
    if (state.kind === 'leading' && !this.isLeading) {
      // A machine that slept wakes up here: the deadline's timer did not fire, but the time is over.
      await this.#end(state, 'not renewed in time')
      return
    }
    const startedAt = this.#clock.now()
    const startedWall = this.#clock.wall()
    try {
      if (!(await this.#acquire(signal))) {
        if (state.kind === 'leading') await this.#end(state, 'another replica holds the lease')
        return
      }
    } catch (error) {
      if (!signal.aborted) this.#log.warn({ resource: 'leases', err: error }, 'could not renew or read the lease')
      if (hasStatus(error, 409)) this.#lease = undefined
      return
    }
    if (signal.aborted && state.kind === 'standby') {
      await this.#release()
      return
    }
    this.#hold(startedAt, startedWall)
  }

  /** Whether we hold the lease after this. The time that counts is from before the request, because the server may have written it then. */
  async #acquire(signal: AbortSignal): Promise<boolean> {
    const { client, identity } = this.#options
    // While leading, our own last answer is as good as a read: if somebody took the lease, the write fails with 409.
    const isLeading = this.#state.kind === 'leading'
    if (!isLeading || this.#lease === undefined) this.#lease = await this.#read(signal)
    const now = new Date(this.#clock.wall()).toISOString().replace('Z', '000Z')
    const lease = this.#lease
    const spec: LeaseSpec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(LEASE_MS / 1000)),
      renewTime: now,
    }
    if (lease === undefined) {
      this.#lease = await client.request<Lease>({
        method: 'POST',
        path: this.#collection,
        body: {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { name: this.#options.name, namespace: this.#options.namespace },
          spec: { ...spec, acquireTime: now, leaseTransitions: 0 },
        },
        timeoutMs: this.#requestMs,
        signal,
      })
      return true
    }
    const holder = lease.spec?.holderIdentity ?? ''
    const isOurs = holder === identity
    if (isLeading && !isOurs) return false
    if (!isOurs && holder !== '' && !this.#hasExpired(lease) && !(await this.#isGone(holder, signal))) return false
    this.#lease = await client.request<Lease>({
      method: 'PUT',
      path: this.#path,
      body: {
        ...lease,
        spec: {
          ...lease.spec,
          ...spec,
          acquireTime: isOurs ? lease.spec?.acquireTime : now,
          leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + (isOurs ? 0 : 1),
        },
      },
      timeoutMs: this.#requestMs,
      signal,
    })
    return true
  }

  async #read(signal?: AbortSignal): Promise<Lease | undefined> {
    try {
      return await this.#options.client.request<Lease>({ path: this.#path, timeoutMs: this.#requestMs, signal })
    } catch (error) {
      if (hasStatus(error, 404)) return undefined
      throw error
    }
  }

  /** A question that has no answer leaves the lease the last word. */
  async #isGone(holder: string, signal: AbortSignal): Promise<boolean> {
    try {
      const isGone = (await this.#options.isGone?.(holder, signal)) ?? false
      if (isGone) this.#log.info({ resource: 'leases', pod: holder }, 'the holder of the lease is gone')
      return isGone
    } catch (error) {
      if (!signal.aborted)
        this.#log.warn({ resource: 'pods', err: error }, 'could not look for the holder of the lease')
      return false
    }
  }

  #hasExpired(lease: Lease): boolean {
    const version = lease.metadata.resourceVersion
    const now = this.#clock.now()
    if (this.#seen?.version !== version) this.#seen = { version, at: now }
    const theirs = (lease.spec?.leaseDurationSeconds ?? LEASE_MS / 1000) * 1000
    return now - this.#seen.at >= theirs
  }

  #hold(from: number, wallFrom: number): void {
    const until = from + RENEW_DEADLINE_MS
    const wallUntil = wallFrom + RENEW_DEADLINE_MS
    const state = this.#state
    if (state.kind === 'leading') {
      state.deadline.cancel()
      state.until = until
      state.wallUntil = wallUntil
      state.deadline = this.#deadline(until)
      return
    }
    const term = new AbortController()
    this.#log.info({ resource: 'leases', detail: this.#options.identity }, 'leading')
    // `lead` starts only after the state says so: its first write asks isLeading.
    const started = Promise.withResolvers<void>()
    const done = started.promise
      .then(() => this.#lead(term.signal))
      .catch((error: unknown) => this.#log.error({ err: error }, 'the writing half failed'))
    this.#state = { kind: 'leading', term, done, deadline: this.#deadline(until), until, wallUntil }
    this.#options.onChange?.(true)
    started.resolve()
  }

  #deadline(until: number): Timer {
    return this.#clock.after(until - this.#clock.now(), () => {
      const state = this.#state
      // Aborting is enough to stop the writes at once; the loop, which may be in a slow request, does the rest.
      if (state.kind === 'leading' && !state.term.signal.aborted) {
        this.#log.warn({ resource: 'leases' }, 'lease not renewed in time, writing stops')
        state.term.abort()
        this.#options.onChange?.(false)
      }
    })
  }

  async #end(state: State & { kind: 'leading' }, why: string): Promise<void> {
    state.deadline.cancel()
    const wasTold = state.term.signal.aborted
    state.term.abort()
    if (!wasTold) this.#options.onChange?.(false)
    this.#log.info({ resource: 'leases', reason: why }, 'not leading any more')
    await state.done
    this.#state = { kind: 'standby' }
  }

  async #release(): Promise<void> {
    try {
      // Read again: a renewal that was cut off by our own stop may have been written.
      const lease = await this.#read()
      if (lease?.spec?.holderIdentity !== this.#options.identity) return
      await this.#options.client.request({
        method: 'PUT',
        path: this.#path,
        body: { ...lease, spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 } },
        timeoutMs: this.#requestMs,
      })
    } catch (error) {
      this.#log.warn({ resource: 'leases', err: error }, 'could not release the lease, it expires by itself')
    }
  }

  get #collection(): string {
    return `/apis/coordination.k8s.io/v1/namespaces/${this.#options.namespace}/leases`
  }

  get #path(): string {
    return `${this.#collection}/${this.#options.name}`
  }

  /** One slow request must leave time for another within the deadline. */
  get #requestMs(): number {
    return Math.max(1000, RENEW_DEADLINE_MS / 2)
  }
}
