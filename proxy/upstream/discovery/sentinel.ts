/** Discovery by Redis Sentinel: the master that most Sentinels agree on and that says so itself, or its replicas. */
import type { SentinelDiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Reason } from '../../../common/reasons.ts'
import type { Random } from '../../policy/policy.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { Dial } from '../connector.ts'
import type { Resolver } from '../dns/resolver.ts'
import { addressName } from '../endpoint.ts'
import { type LoginFailure, logIn } from '../redis/login.ts'
import type { SentinelAccess } from '../redis/sentinel-access.ts'
import { SentinelPeer } from '../redis/sentinel-peer.ts'
import { type Ballot, type Tally, tally } from '../redis/sentinel-tally.ts'
import { type Place, placeName, type SentinelEvent } from '../redis/sentinel-view.ts'
import type { Address, Discovery, Halt } from './discovery.ts'
import { NameSet, type Target } from './name-set.ts'

/** Between two rounds of questions: while all is well, the least, and the most while something is not. */
const CALM_MS = 10_000
const SOON_MS = 50
const RETRY_MS = 1_000
/** A failover that was announced and does not come holds traffic for no longer. */
const ANNOUNCED_MS = 10_000
const CHECK_MS = 2_000
/** Sentinels beyond the configured ones. */
const MAX_LEARNED = 16

/** Servers that are known to be down; with more of them, all are forgotten. */
const MAX_DOWN = 64

/** What a server is not to blame for, and would be the same with every other. */
const OURS: ReadonlySet<Reason> = new Set<Reason>(['auth_unavailable', 'tls_verify_failed', 'egress_denied'])

/** A replica is told to become the master, or has become it. */
const ANNOUNCING = new Set(['+failover-state-send-slaveof-noone', '+promoted-slave', '+switch-master'])

export class SentinelDiscovery implements Discovery {
  failure: string | null = null
  readonly #config: SentinelDiscoveryConfig
  readonly #access: SentinelAccess
  readonly #random: Random
  readonly #sentinels: NameSet
  readonly #resolver: Resolver
  /** Of the servers that are agreed on. */
  #servers: NameSet | null = null
  /** By ip:port. */
  readonly #peers = new Map<string, SentinelPeer>()
  #places: readonly Address[] = []
  #learned: readonly Target[] = []
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #onHalt: ((halt: Halt) => void) | undefined
  /** What the Sentinels agree on, and its addresses. */
  #wanted = ''
  #addresses: readonly Address[] = []
  /** The addresses that the one in use was found among; empty: none was found yet. */
  #confirmed: readonly Address[] = []
  #inUse: readonly Address[] = []
  #halt: Halt = 'none'
  /** Something speaks against the master in use: it is asked for its role. */
  #isDoubted = false
  /** A failover was announced; until then the old master is not trusted, whatever it says. */
  #announcedUntil = Number.NEGATIVE_INFINITY
  /** Servers that a Sentinel says do not answer, by their place. */
  readonly #down = new Set<string>()
  #check: Dial | null = null
  readonly #timer = new CoarseTimer(() => this.#look())
  #lookedAt = Number.NEGATIVE_INFINITY
  #waitMs = SOON_MS
  #isStopped = false

  constructor(
    config: SentinelDiscoveryConfig,
    resolver: Resolver,
    access: SentinelAccess,
    random: Random = Math.random,
  ) {
    this.#config = config
    this.#resolver = resolver
    this.#access = access
    this.#random = random
    this.#sentinels = new NameSet({
      resolver,
      onChange: (addresses) => this.#onSentinels(addresses),
      onFailure: () => this.#decide(),
    })
  }

  start(
    onChange: (endpoints: readonly Address[]) => void,
    onFailure?: (failure: string | null) => void,
    onHalt?: (halt: Halt) => void,
  ): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#onHalt = onHalt
    this.#setTargets()
    this.#lookSoon()
  }

  /** A server could not be used: nothing new goes to the master before it was asked again. */
  refresh(): void {
    if (this.#isStopped) return
    if (this.#config.role === 'Master' && this.#inUse.length > 0) {
      this.#isDoubted = true
      if (this.#halt === 'none') this.#setHalt('new')
    }
    this.#lookSoon()
  }

  isDown(host: string, port: number): boolean {
    return this.#down.has(placeName({ host, port }))
  }

  stop(): void {
    this.#isStopped = true
    this.#timer.release()
    this.#check?.cancel()
    this.#check = null
    for (const peer of this.#peers.values()) peer.stop()
    this.#peers.clear()
    this.#sentinels.stop()
    this.#servers?.stop()
  }

  // The Sentinels.

  #setTargets(): void {
    const own = this.#config.sentinels.map(({ host, port }) => ({ host, port, weight: 1, priority: 0 }))
    this.#sentinels.setTargets([...own, ...this.#learned])
  }

  #onSentinels(addresses: readonly Address[]): void {
    this.#places = addresses
    const wanted = new Map(addresses.map((address) => [addressName(address.ip, address.port), address]))
    for (const [name, peer] of this.#peers) {
      if (wanted.has(name)) continue
      peer.stop()
      this.#peers.delete(name)
    }
    for (const [name, address] of wanted) {
      if (this.#peers.has(name)) continue
      const peer = new SentinelPeer({
        address,
        masterName: this.#config.masterName,
        wantsReplicas: this.#config.role === 'Replica',
        access: this.#access,
        random: this.#random,
        onView: (each) => this.#onView(each),
        onEvent: (event) => this.#onEvent(event),
      })
      this.#peers.set(name, peer)
      peer.start()
    }
    this.#decide()
  }

  #onView(peer: SentinelPeer): void {
    if (this.#isStopped) return
    refreshClock()
    if (peer.view === null) this.#sentinels.refresh()
    this.#learn()
    this.#decide()
  }

  /** One has not said anything yet, not even that it does not answer. */
  get #isWaiting(): boolean {
    if (this.#peers.size === 0) return this.#sentinels.failure === null
    return [...this.#peers.values()].some(({ view, failure }) => view === null && failure === null)
  }

  #isConfigured({ host, port }: Place): boolean {
    return this.#config.sentinels.some((each) => each.host === host && each.port === port)
  }

  /** Takes over who else is there from those that answer; one that answers stays, though it does not name itself. */
  #learn(): void {
    const peers = [...this.#peers.values()]
    const answering = peers.filter(({ view }) => view?.master != null)
    if (answering.length === 0) return
    const own = peers.filter(({ address }) => this.#isConfigured(address))
    const ids = new Set(own.map(({ id }) => id))
    const found = new Map<string, Target>()
    for (const { address, view } of peers) {
      if (!this.#isConfigured(address) && view !== null) found.set(placeName(address), target(address))
    }
    for (const { view } of answering) {
      for (const each of view?.sentinels ?? []) {
        const isOwn = ids.has(each.id) || this.#isConfigured(each) || own.some(({ name }) => name === placeName(each))
        if (!isOwn && found.size < MAX_LEARNED) found.set(placeName(each), target(each))
      }
    }
    const learned = [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each)
    if (learned.map(placeName).join() === this.#learned.map(placeName).join()) return
    this.#learned = learned
    this.#setTargets()
  }

  #tally(): Tally {
    const ballots: Ballot[] = []
    for (const { address, id, name, view } of this.#peers.values()) {
      // Behind a NAT there are Sentinels that nobody can reach: one that was only heard of does not count.
      if (id === null && view === null && !this.#isConfigured(address)) continue
      ballots.push({ voter: id ?? name, name, master: view === null ? undefined : view.master })
    }
    const found = new Set(this.#places.map(({ host }) => host))
    const absent = this.#config.sentinels.filter(({ host }) => !found.has(host)).length
    return tally(ballots, absent, this.#config.masterName)
  }

  #onEvent({ channel, subject, place }: SentinelEvent): void {
    if (this.#isStopped) return
    refreshClock()
    this.#noteDown(channel, place)
    const isMaster = this.#config.role === 'Master'
    if (isMaster && ANNOUNCING.has(channel) && !this.#isInUse(place)) this.#announce()
    else if (channel.startsWith('-failover-abort')) this.#announcedUntil = Number.NEGATIVE_INFINITY
    else if (isMaster && subject === 'master' && (channel === '+sdown' || channel === '+odown')) {
      this.refresh()
      return
    }
    this.#waitMs = SOON_MS
    this.#look()
  }

  #noteDown(channel: string, place: Place | null): void {
    if (place === null) return
    if (channel === '-sdown' || channel === '-odown' || channel === '+reboot') this.#down.delete(placeName(place))
    else if (channel === '+sdown' || channel === '+odown') {
      if (this.#down.size === MAX_DOWN) this.#down.clear()
      this.#down.add(placeName(place))
    }
  }

  /** What is written to the old master from here on would be lost. */
  #announce(): void {
    this.#announcedUntil = now() + ANNOUNCED_MS
    this.#isDoubted = true
    if (this.#inUse.length > 0) this.#setHalt('all')
  }

  #isInUse(place: Place | null): boolean {
    return place !== null && this.#wanted === placeName(place) && this.#confirmed === this.#addresses
  }

  // The questions.

  get #isCalm(): boolean {
    return this.#inUse.length > 0 && !this.#isDoubted && this.failure === null
  }

  #lookSoon(): void {
    this.#timer.set(Math.max(refreshClock(), this.#lookedAt + 2 * SOON_MS))
  }

  #look(): void {
    if (this.#isStopped) return
    const at = refreshClock()
    this.#lookedAt = at
    if (this.#isCalm) this.#waitMs = SOON_MS
    const waitMs = this.#isCalm ? CALM_MS : this.#waitMs
    this.#waitMs = Math.min(RETRY_MS, this.#waitMs * 1.5)
    this.#timer.set(at + waitMs * (0.9 + 0.2 * this.#random()))
    for (const peer of this.#peers.values()) {
      peer.look()
      if (waitMs === CALM_MS) peer.check()
    }
    // Where none answers there is no view that would bring the next step.
    this.#decide()
  }

  // What follows from the answers.

  #decide(): void {
    if (this.#isStopped) return
    const count = this.#tally()
    if (count.master === null) {
      if (this.#isWaiting) return
      this.#setFailure(`${count.problem}${this.#details()}`)
      // Whoever was agreed on last may still say what it is.
      if (this.#isDoubted && now() >= this.#announcedUntil) this.#verify(this.#confirmed)
      return
    }
    const places = this.#config.role === 'Master' ? [count.master] : this.#replicas(count)
    if (places.length === 0) {
      const { masterName } = this.#config
      const master = placeName(count.master)
      this.#setFailure(
        `master '${masterName}' (${master}) has no replica that is up and linked to it: add one, or use role Master`,
      )
      this.#setHalt('new')
      return
    }
    const wanted = places.map(placeName).join()
    if (wanted === this.#wanted) {
      this.#onServers()
      return
    }
    this.#wanted = wanted
    if (this.#config.role === 'Master' && this.#inUse.length > 0) this.#announce()
    this.#addresses = []
    this.#check?.cancel()
    this.#check = null
    this.#servers?.stop()
    this.#servers = new NameSet({
      resolver: this.#resolver,
      onChange: (addresses) => {
        this.#addresses = addresses
        this.#onServers()
      },
      onFailure: () => {},
    })
    this.#servers.setTargets(places.map(target))
  }

  /** Those that more than half of the Sentinels that know the master find well. */
  #replicas({ agreeing }: Tally): Place[] {
    const counts = new Map<string, { readonly place: Place; count: number }>()
    for (const { name, view } of this.#peers.values()) {
      if (!agreeing.has(name)) continue
      for (const place of view?.replicas ?? []) {
        const key = placeName(place)
        const entry = counts.get(key) ?? { place, count: 0 }
        entry.count++
        counts.set(key, entry)
      }
    }
    return [...counts]
      .filter(([, { count }]) => count * 2 > agreeing.size)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { place }]) => place)
  }

  /** What was agreed on is known with its addresses. */
  #onServers(): void {
    if (this.#addresses.length === 0) return
    if (this.#config.role === 'Replica') {
      this.#use(this.#addresses)
      return
    }
    const isSame = this.#addresses === this.#confirmed
    if (!isSame || (this.#isDoubted && now() >= this.#announcedUntil)) this.#verify(this.#addresses)
    else if (!this.#isDoubted) this.#setFailure(null)
  }

  /** Asks a server for its role, one address of it after the other. */
  #verify(addresses: readonly Address[], at = 0): void {
    const address = addresses[at]
    if (this.#check !== null || address === undefined) return
    const { guard, servers } = this.#access
    const { tls, credential, proxyProtocol, timeoutMs } = servers
    this.#check = logIn(
      { address, tls, alpn: null, guard, proxyProtocol, isCheck: true, timeoutMs: Math.min(CHECK_MS, timeoutMs) },
      { credential, role: 'Master' },
      {
        onLoggedIn: (socket) => {
          this.#check = null
          socket.destroy()
          this.#use(addresses, address)
        },
        onLoginFailed: (failure) => {
          this.#check = null
          refreshClock()
          // Whoever connects finds out the same, with its reason.
          if (OURS.has(failure.reason)) this.#use(addresses, address)
          else if (at + 1 < addresses.length) this.#verify(addresses, at + 1)
          else this.#onWrong(addresses, failure)
        },
      },
      true,
    )
  }

  #onWrong(addresses: readonly Address[], { reason, detail }: LoginFailure): void {
    const { masterName } = this.#config
    this.#isDoubted = true
    this.#setFailure(`master '${masterName}': ${detail}`)
    // Its connections break by themselves, or it tells their commands that it is not the one.
    const isDemoted = reason === 'no_healthy_endpoint' || addresses !== this.#confirmed
    if (this.#inUse.length > 0) this.#setHalt(isDemoted || this.#halt === 'all' ? 'all' : 'new')
  }

  #use(addresses: readonly Address[], verified: Address | null = null): void {
    const before = this.#inUse
    this.#confirmed = addresses
    this.#inUse = verified === null ? addresses : [verified]
    this.#isDoubted = false
    this.#announcedUntil = Number.NEGATIVE_INFINITY
    this.#setFailure(null)
    if (JSON.stringify(before) !== JSON.stringify(this.#inUse)) this.#onChange(this.#inUse)
    this.#setHalt('none')
  }

  #setHalt(halt: Halt): void {
    if (halt === this.#halt) return
    this.#halt = halt
    this.#onHalt?.(halt)
  }

  /** What is wrong with each Sentinel. */
  #details(): string {
    const all = [...this.#peers.values()].flatMap(({ failure }) => failure ?? [])
    if (this.#sentinels.failure !== null) all.push(this.#sentinels.failure)
    const rest = all.length > 3 ? ` and ${all.length - 3} more` : ''
    return all.length === 0 ? '' : `; ${all.slice(0, 3).join('; ')}${rest}`
  }

  #setFailure(text: string | null): void {
    const inUse = this.#inUse.map(({ ip, port }) => addressName(ip, port)).join(', ')
    const failure = text !== null && inUse !== '' ? `${text}; known last: ${inUse}` : text
    if (failure === this.failure) return
    this.failure = failure
    this.#onFailure?.(failure)
  }
}

function target({ host, port }: Place): Target {
  return { host, port, weight: 1, priority: 0 }
}
