/** One Ambassador as this process serves it: the config in force, its port, its driver, and the newest config that is not in force. */
import { canonicalJson, withoutEndpoints } from '../common/config-hash.ts'
import type { AmbassadorReport, LoadFailure, RefReport } from '../common/configz.ts'
import type { Log } from '../common/log.ts'
import type { ProxyConfig } from '../common/proxy-config.ts'
import { changesText } from './config/changes.ts'
import { type Candidate, type CompileParts, Compiler, type Snapshot } from './config/compile.ts'
import type { ConfigRead, ConfigSource } from './config/load.ts'
import { refPaths } from './config/refs.ts'
import { BindError, Listener, PortInUseError } from './listener/listener.ts'
import { NoDirectoryError, openSocket, type UnixListener } from './listener/unix-listener.ts'
import type { RateLimit } from './policy/rate-limit.ts'
import type { Driver } from './protocol/driver.ts'
import type { HttpDriver } from './protocol/http1/driver.ts'
import type { Pooling } from './protocol/postgres/pooling.ts'
import type { RedisDriver } from './protocol/redis/driver.ts'
import type { TcpDriver } from './protocol/tcp/driver.ts'
import { type Accepted, drop } from './runtime/listen.ts'
import type { SpanSender } from './tracing/sender.ts'

/** A driver that takes over new snapshots. */
export interface SnapshotDriver extends Driver {
  update(snapshot: Snapshot): void
  /** Answers (HTTP) or connections (TCP) so far, by status or end. */
  readonly answers: Readonly<Record<string, number>>
  /** Where its spans go; absent: its protocol has none. */
  readonly spans?: SpanSender
  /** What metrics read; null when it counts nothing more. */
  readonly counts:
    | { readonly protocol: 'HTTP'; readonly http: HttpDriver }
    | { readonly protocol: 'TCP'; readonly tcp: Pick<TcpDriver, 'totals'>; readonly pooling?: Pooling }
    | { readonly protocol: 'Redis'; readonly redis: RedisDriver }
    | null
}

/** What makes a driver for the protocol of a snapshot. */
export type MakeDriver = (snapshot: Snapshot, onTrouble: OnTrouble) => SnapshotDriver

/** Told of trouble on the data path that a person should see. */
export type OnTrouble = (reason: string, message: string) => void

export interface ServedParts
  extends Omit<CompileParts, 'onCircuit' | 'onDenied' | 'onDiscovery' | 'onHealth' | 'onSwitch' | 'onTokenFailure'> {
  readonly log: Log
  readonly makeDriver: MakeDriver
  /** Who in this process has a port already, in words; null when nobody of ours has it. */
  readonly portOwner: (port: number, asker: Served) => string | null
  /** The Ambassador of this process that listens on a Unix socket, in words; null when none does. */
  readonly socketOwner: (path: string, asker: Served) => string | null
  /** Gives the asker a Unix socket whose owner waits for that of the asker: two that want each other's would wait for ever. */
  readonly tradeSocket: (path: string, asker: Served) => void
  /** The listener of a port that another Ambassador leaves for one that, in the end, is the asker's; null when there is none. */
  readonly tradePort: (port: number, asker: Served) => Listener | null
  /** Has every Ambassador of this process let go of a port that it has left and still answers on. */
  readonly releasePort: (port: number) => Promise<void>
  /** How long a port that was left is still answered on, in milliseconds. */
  readonly lingerMs: number
  /** Told of each new config that was put in force or not. */
  readonly onLoad: (result: 'applied' | 'rejected') => void
  /** Time of day in milliseconds. */
  readonly wallNow: () => number
}

interface InForce {
  readonly config: ProxyConfig
  readonly since: string
  readonly snapshot: Snapshot
}

/** Bound, and not yet served by anybody. */
interface Opened {
  readonly listener: Listener
  readonly socket: UnixListener | null
}

interface Rejected {
  readonly config: ProxyConfig | null
  readonly refs: readonly RefReport[]
  readonly report: NonNullable<AmbassadorReport['rejected']>
}

/** Turns of the event loop that a destroy() waits for the ends of what it cut. */
const MAX_TURNS = 100

/** A failure this long ago may be why a circuit is open: longer than one stays open without a probe by default. */
const CAUSE_MS = 600_000

export class Served {
  readonly namespace: string
  readonly name: string
  #source: ConfigSource
  readonly #parts: ServedParts
  readonly #compiler: Compiler
  #inForce: InForce | null = null
  #refs: readonly RefReport[] = []
  #rejected: Rejected | null = null
  #endpointsHash: string | null = null
  #lastError: AmbassadorReport['lastError'] = null
  #listener: Listener | null = null
  #socket: UnixListener | null = null
  /** The port before the last move: whoever uses it needs a moment to follow. */
  #left: { readonly listener: Listener; readonly timer: NodeJS.Timeout } | null = null
  #driver: SnapshotDriver | null = null
  /** Drivers of an earlier protocol whose connections have not ended. */
  readonly #leaving = new Set<SnapshotDriver>()
  #isDraining = false

  constructor(source: ConfigSource, parts: ServedParts) {
    this.#source = source
    this.namespace = source.namespace
    this.name = source.name
    this.#parts = parts
    this.#compiler = new Compiler({
      ...parts,
      onCircuit: ({ name: cluster }, { name: endpoint }, state) => {
        const fields = { ...this.#keys(), cluster, endpoint }
        if (state === 'open') parts.log.warn(fields, 'circuit breaker opened')
        else
          parts.log.info(fields, state === 'closed' ? 'circuit breaker closed' : 'circuit breaker lets a probe through')
      },
      onTokenFailure: (cluster, message) => {
        parts.log.warn({ ...this.#keys(), cluster, detail: message }, 'a token could not be fetched')
        this.#trouble('auth_unavailable', `upstream '${cluster}': ${message}`)
      },
      onDenied: ({ name: cluster }, { detail }) => {
        parts.log.warn({ ...this.#keys(), cluster, detail }, 'an endpoint is not dialled')
        this.#trouble('egress_denied', `upstream '${cluster}': ${detail}`)
      },
      onHealth: ({ name: cluster }, { name: endpoint }, failure) => {
        const fields = { ...this.#keys(), cluster, endpoint }
        if (failure === null) parts.log.info(fields, 'endpoint is healthy again')
        else parts.log.warn({ ...fields, detail: failure }, 'endpoint is out of use while others are well')
      },
      onSwitch: ({ name: cluster }, from, endpoint) => {
        parts.log.info({ ...this.#keys(), cluster, endpoint, detail: `instead of ${from}` }, 'another master is in use')
      },
      onDiscovery: ({ name: cluster, whyUnready }, failure) => {
        const fields = { ...this.#keys(), cluster }
        if (failure === null) parts.log.info(fields, 'endpoints are found again')
        else {
          parts.log.warn({ ...fields, detail: failure }, 'endpoints cannot be looked up, those that are known stay')
          this.#trouble(whyUnready, `upstream '${cluster}': ${failure}`)
        }
      },
    })
  }

  /** Directories and files whose change asks for reload(). */
  get paths(): readonly string[] {
    const configs = [this.#inForce?.config, this.#rejected?.config].filter((config) => config != null)
    return [...this.#source.paths, ...configs.flatMap((config) => refPaths(config, this.#parts.dirs))]
  }

  get config(): ProxyConfig | null {
    return this.#inForce?.config ?? null
  }

  get compiled(): Compiler['clusters'] {
    return this.#compiler.clusters
  }

  get driver(): SnapshotDriver | null {
    return this.#driver
  }

  /** The port that is bound; null while none is. */
  get port(): number | null {
    return this.#listener?.port ?? null
  }

  /** `127.0.0.1:8081`, `[::1]:8081`, `unix:/run/db/db.sock`. */
  get listening(): readonly string[] {
    const port = this.#listener?.port
    const addresses = (this.#listener?.addresses ?? []).map((each) =>
      each.includes(':') ? `[${each}]:${port}` : `${each}:${port}`,
    )
    return this.#socket === null ? addresses : [...addresses, `unix:${this.#socket.path}`]
  }

  /** The Unix socket that is bound; null while none is. */
  get socketPath(): string | null {
    return this.#socket?.path ?? null
  }

  /** The port of the newest config; null while there is none. */
  get wantedPort(): number | null {
    return this.#rejected?.config?.listener.port ?? this.#listener?.port ?? null
  }

  /** The Unix socket of a config that is not in force; null while there is none. */
  get wantedSocket(): string | null {
    return this.#rejected?.config?.listener.unix ?? null
  }

  get answers(): Readonly<Record<string, number>> {
    return this.#driver?.answers ?? {}
  }

  /** The rate limits in force, of all and of routes. */
  get rateLimits(): readonly RateLimit[] {
    const { rateLimit = null, routeLimits = [] } = this.#inForce?.snapshot ?? {}
    return [rateLimit, ...routeLimits].filter((limit) => limit !== null)
  }

  /** Sidecars that share limits; null: it has no limit that is shared. */
  get sidecars(): number | null {
    return this.config?.fleet === undefined ? null : this.#compiler.sidecars
  }

  /** The newest config waits for a port that somebody else has. */
  get waitsForPort(): boolean {
    return this.#rejected?.report.reason === 'PortInUse'
  }

  /** Connections of the application, those of an earlier protocol too. */
  get connections(): { readonly open: number; readonly busy: number } {
    let open = 0
    let busy = 0
    for (const driver of [this.#driver, ...this.#leaving]) {
      open += driver?.open ?? 0
      busy += driver?.busy ?? 0
    }
    return { open, busy }
  }

  /** Requests that may come to hold more memory than they do now. */
  get growing(): number {
    let growing = 0
    for (const driver of [this.#driver, ...this.#leaving]) growing += driver?.growing ?? 0
    return growing
  }

  /** Ends up to `count` requests that wait for slow peers; returns how many. */
  endSome(count: number, detail: string): number {
    let ended = 0
    for (const driver of [this.#driver, ...this.#leaving]) ended += driver?.endSome?.(count - ended, detail) ?? 0
    return ended
  }

  /** Another source for the same Ambassador, whose content the next reload() reads. */
  setSource(source: ConfigSource): void {
    this.#source = source
  }

  /**
   * Reads the source and every reference, and puts in force what can be. Level-based: it may be called at any time, and does
   * nothing when nothing changed. Never called twice at once.
   */
  async reload(): Promise<void> {
    if (this.#isDraining) return
    const read = this.#source.read()
    const inForce = this.#inForce
    if (!read.ok) {
      this.#refs = this.#compiler.refresh()
      this.#reject(read.reason, read.message, read, null, [])
      return
    }
    const { config } = read
    this.#compiler.takeEndpoints(config)
    this.#endpointsHash = config.endpointsHash ?? null
    if (inForce !== null && contentOf(config) === contentOf(inForce.config)) {
      this.#refs = this.#compiler.refresh()
      this.#rejected = null
      const isNewGeneration = config.ambassador.generation !== inForce.config.ambassador.generation
      if (isNewGeneration) this.#inForce = { ...inForce, config }
      return
    }
    // The first time the port comes first: certificates take longer than all else, and who connects meanwhile waits in the kernel.
    const early = inForce === null ? await this.#open(config) : null
    const candidate = this.#compiler.prepare(config)
    if (inForce !== null && candidate.problem !== null && this.#compiler.isServing) {
      this.#refs = this.#compiler.refresh()
      this.#compiler.discard(candidate)
      this.#reject(candidate.problem.reason, candidate.problem.message, config, config, candidate.refs)
      return
    }
    const opened = early ?? (await this.#open(config))
    if (opened instanceof Error) {
      this.#compiler.discard(candidate)
      const reason = opened instanceof NoDirectoryError ? 'NotMounted' : 'PortInUse'
      this.#reject(reason, opened.message, config, config, candidate.refs)
      return
    }
    // No turn of the event loop since the port was opened, or a connection would be accepted that nobody serves.
    await this.#commit(candidate, opened.listener, opened.socket)
  }

  /** What a config listens on, each the one that is there or a new one that is bound; an error when one cannot be had. */
  async #open(config: ProxyConfig): Promise<Opened | Error> {
    const socket = await this.#listenUnix(config)
    if (socket instanceof Error) return socket
    const listener = await this.#listen(config)
    if (!(listener instanceof Error)) return { listener, socket }
    if (socket !== this.#socket) socket?.close()
    return listener
  }

  /** The Unix socket of a config, null when it has none: the one that is there, or a new one that is bound; an error when it cannot be had. */
  async #listenUnix({ listener: { unix } }: ProxyConfig): Promise<UnixListener | Error | null> {
    if (unix === undefined) return null
    if (this.#socket?.path === unix) return this.#socket
    const { socketOwner, tradeSocket, dirs } = this.#parts
    tradeSocket(unix, this)
    if (this.#socket?.path === unix) return this.#socket
    return openSocket(unix, { owner: socketOwner(unix, this), isPod: dirs.isPod ?? true, onError: this.#onAcceptError })
  }

  /** The listener for a config: the one that is there, or a new one that is bound; an error when its port cannot be had. */
  async #listen(config: ProxyConfig): Promise<Listener | Error> {
    const { port } = config.listener
    if (this.#listener?.port === port) return this.#listener
    if (this.#left?.listener.port === port) {
      clearTimeout(this.#left.timer)
      const { listener } = this.#left
      this.#left = null
      return listener
    }
    const traded = this.#parts.tradePort(port, this)
    if (traded !== null) return (this.#listener = traded)
    const owner = this.#parts.portOwner(port, this)
    if (owner !== null) return new PortInUseError(port, null, owner)
    await this.#parts.releasePort(port)
    const listener = new Listener(port, drop, this.#onAcceptError)
    try {
      await listener.bind()
      return listener
    } catch (error) {
      if (!(error instanceof PortInUseError || error instanceof BindError)) throw error
      return error
    }
  }

  readonly #onAcceptError = (err: Error): void => {
    this.#parts.log.warn({ ...this.#keys(), port: this.port, err }, 'a connection could not be accepted')
  }

  async #commit(candidate: Candidate, listener: Listener, socket: UnixListener | null): Promise<void> {
    const before = this.#inForce
    const snapshot = this.#compiler.commit(candidate)
    const { config, refs } = candidate
    if (this.#driver !== null && before?.config.protocol === config.protocol) this.#driver.update(snapshot)
    else {
      const left = this.#driver
      this.#driver = this.#parts.makeDriver(snapshot, (reason, message) => this.#trouble(reason, message))
      if (left !== null) {
        this.#leaving.add(left)
        void left.drain().then(() => this.#leaving.delete(left))
      }
    }
    const serve = (accepted: Accepted) => this.#driver?.serve(accepted)
    listener.handOver(serve)
    socket?.handOver(serve)
    const old = this.#listener
    this.#listener = listener
    if (this.#socket !== socket) this.#socket?.close()
    this.#socket = socket
    this.#inForce = { config, snapshot, since: this.#now() }
    this.#refs = refs
    this.#rejected = null
    this.#parts.onLoad('applied')
    const { hash, ambassador, listener: at } = config
    const fields = { ...this.#keys(), hash, generation: ambassador.generation, port: at.port }
    const changes = before === null ? '' : changesText(before.config, config)
    const changed = changes === '' ? [] : [`changed: ${changes}`]
    if (candidate.problem === null) {
      this.#parts.log.info({ ...fields, ...(changed.length > 0 && { detail: changed[0] }) }, 'config in force')
    } else {
      const detail = [candidate.problem.message, ...changed].join('; ')
      this.#parts.log.warn({ ...fields, detail }, 'config in force, but what it refers to is not usable')
    }
    for (const { name: cluster, tls } of config.clusters) {
      if (tls?.insecureSkipVerify === undefined) continue
      const detail = tls.insecureSkipVerify.reason
      this.#parts.log.warn({ ...this.#keys(), cluster, detail }, 'the certificate of the upstream is not verified')
    }
    if (old !== null && old !== listener) await this.#leave(old)
  }

  /** Goes on answering on a port for a while: an application cannot change its port in the same instant as we do. */
  async #leave(listener: Listener): Promise<void> {
    await this.release()
    this.#left = { listener, timer: setTimeout(() => void this.release(), this.#parts.lingerMs) }
    this.#left.timer.unref()
  }

  /**
   * Gives its listener to another Ambassador for that one's own, without closing either: neither port refuses anybody. What comes at
   * the new one is still the other's until the config that wants it is in force, which is read again after this.
   */
  exchange(other: Served): Listener | null {
    const given = this.#listener
    this.#listener = other.#listener
    return given
  }

  /** The same with Unix sockets, when it waits for that of the other one. */
  exchangeSocket(other: Served): void {
    if (other === this || !this.waitsForPort || this.wantedSocket !== other.socketPath) return
    const given = this.#socket
    this.#socket = other.#socket
    other.#socket = given
  }

  /** Lets go of the port that was left (if it is this one). */
  async release(port?: number): Promise<void> {
    const left = this.#left
    if (left === null || (port !== undefined && left.listener.port !== port)) return
    this.#left = null
    clearTimeout(left.timer)
    await left.listener.close()
  }

  #reject(
    reason: LoadFailure,
    message: string,
    of: ProxyConfig | Extract<ConfigRead, { ok: false }>,
    config: ProxyConfig | null,
    refs: readonly RefReport[],
  ): void {
    const generation = 'ambassador' in of ? of.ambassador.generation : of.generation
    const last = this.#rejected?.report
    const isSame = last?.reason === reason && last.message === message && last.hash === of.hash
    const at = isSame ? last.at : this.#now()
    this.#rejected = { config, refs, report: { hash: of.hash, generation, reason, message, at } }
    if (isSame) return
    this.#parts.onLoad('rejected')
    const kept = this.#inForce === null ? 'config not in force' : 'config not in force, the last good one is kept'
    this.#parts.log.warn({ ...this.#keys(), reason, detail: message, hash: of.hash, generation }, kept)
  }

  #trouble(reason: string, message: string): void {
    // An open circuit is what follows; a person wants to see what went before.
    const last = this.#lastError
    const isFresh = last !== null && this.#parts.wallNow() - Date.parse(last.at) < CAUSE_MS
    if (reason === 'circuit_open' && isFresh) return
    this.#lastError = { reason, message, at: this.#now() }
  }

  #keys() {
    return { ns: this.namespace, ambassador: this.name }
  }

  #now(): string {
    return new Date(this.#parts.wallNow()).toISOString()
  }

  /** All but whether it is ready, which is a question of the process. */
  report(): Omit<AmbassadorReport, 'unready'> {
    const refs = [...this.#refs]
    // A reference of both configs is one reference, as it is now.
    for (const ref of this.#rejected?.refs ?? []) {
      const key = JSON.stringify(ref.ref)
      if (!refs.some((each) => JSON.stringify(each.ref) === key)) refs.push(ref)
    }
    return {
      namespace: this.namespace,
      name: this.name,
      hash: this.#inForce?.config.hash ?? null,
      generation: this.#inForce?.config.ambassador.generation ?? null,
      endpointsHash: this.#endpointsHash,
      since: this.#inForce?.since ?? null,
      rejected: this.#rejected?.report ?? null,
      refs,
      lastError: this.#lastError,
    }
  }

  /** Accepts no more, ends idle connections now and busy ones after the work in flight. Resolves when none is left. */
  async drain(): Promise<void> {
    this.#isDraining = true
    await this.release()
    this.#socket?.close()
    await this.#listener?.close()
    const drivers = [this.#driver, ...this.#leaving].filter((driver) => driver !== null)
    await Promise.all(drivers.map((driver) => driver.drain()))
  }

  /** Ends everything now. Idempotent. */
  async destroy(): Promise<void> {
    this.#isDraining = true
    await this.release()
    this.#socket?.close()
    await this.#listener?.close()
    const drivers = [this.#driver, ...this.#leaving].filter((driver) => driver !== null)
    for (const driver of drivers) driver.destroy()
    // A socket says a turn or two later that it is closed, and only then is its end counted and logged.
    for (let turns = 0; turns < MAX_TURNS && drivers.some(({ open }) => open > 0); turns++) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    // After the last exchange has ended, which may be one that was cut just now.
    await Promise.all(drivers.map((driver) => driver.spans?.close()))
    for (const { cluster } of this.#compiler.clusters) cluster.destroy()
    this.#compiler.close()
  }
}

/** What makes two configs the same, whatever their hashes say: somebody may have edited a file by hand. */
function contentOf(config: ProxyConfig): string {
  const clusters = config.clusters.map((each) => ({ ...each, discovery: withoutEndpoints(each.discovery) }))
  return canonicalJson({ ...config, clusters, hash: null, endpointsHash: null, fleet: null, ambassador: null })
}
