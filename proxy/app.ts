/** The proxy of a process: every Ambassador that it serves, the files that they come from, its two own ports, and its end. */
import type { Configz } from '../common/configz.ts'
import type { Log } from '../common/log.ts'
import { PRODUCT_VERSION } from '../common/names.ts'
import type { DiscoveryConfig } from '../common/proxy-config.ts'
import type { Readiness, SidecarMode } from './config/env.ts'
import type { ConfigSource } from './config/load.ts'
import { type RefDirs, readRef, refText } from './config/refs.ts'
import { FileWatcher, type WatchOptions } from './config/watch.ts'
import type { Listener } from './listener/listener.ts'
import { adminServer, type CircuitWish } from './observe/admin.ts'
import { EventLoopDelay } from './observe/event-loop.ts'
import type { HttpServer } from './observe/http-server.ts'
import type { LogLevel } from './observe/log.ts'
import { metricsText } from './observe/metrics.ts'
import { type ReadyQuestion, telemetryServer } from './observe/telemetry.ts'
import { upstreamsReport } from './observe/upstreams.ts'
import { refreshClock } from './runtime/clock.ts'
import { OverloadWatch } from './runtime/overload.ts'
import { IdleTrim } from './runtime/trim.ts'
import { type MakeDriver, Served, type ServedParts } from './served.ts'
import { TlsContexts } from './tls/contexts.ts'
import type { DiscoverySource } from './upstream/discovery/discover.ts'
import type { Discovery } from './upstream/discovery/discovery.ts'

/** A log whose level an admin may change. */
export interface LevelLog extends Log {
  level: LogLevel
}

export interface ProxyOptions {
  readonly sources: readonly ConfigSource[]
  readonly dirs: RefDirs
  /** 0: a free port, see `telemetryPort`. */
  readonly telemetryPort: number
  /** 0: a free port, see `adminPort`. */
  readonly adminPort: number
  readonly readiness: Readiness
  readonly sidecarMode: SidecarMode
  /** The most that stop() takes, in milliseconds. */
  readonly drainMs: number
  readonly podName: string | null
  /** Zone of this pod. Absent or null: not known. */
  readonly zone?: string | null
  readonly log: LevelLog
  readonly discover: (config: DiscoveryConfig, source: DiscoverySource | null) => Discovery
  readonly makeDriver: MakeDriver
  /** POST /quitquitquit: the owner of the process stops the proxy and ends. */
  readonly onQuit: () => void
  readonly watch?: WatchOptions
  /** Where the cgroup of this container is. Default /sys/fs/cgroup. */
  readonly cgroupDir?: string
  /** How long a port that an Ambassador has left is still answered on. Default 5 s. */
  readonly lingerMs?: number
}

/** Nothing can be served, and a person must act. The message is one sentence. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** With Legacy, the application counts as gone when it has had no connection for this long. */
const QUIET_MS = 5_000
const LINGER_MS = 5_000
/** A port that somebody else has is asked for again this often. */
const PORT_RETRY_MS = 5_000
/** How often a stop looks whether the application is gone. */
const LOOK_MS = 50

export class ProxyApp {
  readonly #options: ProxyOptions
  readonly #startedAt = new Date()
  readonly #tls: TlsContexts
  readonly #parts: ServedParts
  #served: readonly Served[] = []
  readonly #watcher: FileWatcher
  readonly #telemetry: HttpServer
  readonly #admin: HttpServer
  readonly #overload: OverloadWatch
  readonly #delay = new EventLoopDelay((delayMs) => this.#overload.look(delayMs))
  readonly #trim = new IdleTrim(() => this.connections.busy > 0)
  #reloading: Promise<void> | null = null
  #isReloadWanted = false
  #portRetry: NodeJS.Timeout | null = null
  #isDraining = false
  #isStopped = false
  readonly #loads = { applied: 0, rejected: 0 }

  constructor(options: ProxyOptions) {
    const { log, dirs, discover, makeDriver } = options
    this.#options = options
    this.#overload = new OverloadWatch({
      cgroupDir: options.cgroupDir,
      onChange: (cause, detail) => {
        if (cause === null) log.info({}, 'requests are taken again')
        else log.warn({ reason: 'overloaded', detail }, 'new requests are refused')
      },
      growing: () => this.#served.reduce((count, served) => count + served.growing, 0),
      endSome: (count, detail) => {
        this.#served.reduce((ended, served) => ended + served.endSome(count - ended, detail), 0)
      },
    })
    this.#tls = new TlsContexts({
      read: (ref) => readRef(ref, dirs),
      name: refText,
      onReload: ({ tls, isReplaced, failure }) => {
        const detail = failure ?? tls.refs.map(({ ref }) => refText(ref)).join('; ')
        if (failure !== null) log.warn({ detail }, 'TLS files are not usable, the last good ones are kept')
        else log.info({ detail }, isReplaced ? 'TLS files replaced' : 'TLS files are usable again')
      },
    })
    this.#parts = {
      dirs,
      discover,
      makeDriver,
      log,
      tls: this.#tls,
      zone: options.zone ?? null,
      lingerMs: options.lingerMs ?? LINGER_MS,
      releasePort: async (port) => {
        for (const served of this.#served) await served.release(port)
      },
      portOwner: (port, asker) => this.#portOwner(port, asker),
      socketOwner: (path, asker) => this.#socketOwner(path, asker),
      tradeSocket: (path, asker) => {
        for (const served of this.#served) if (served.socketPath === path) served.exchangeSocket(asker)
      },
      tradePort: (port, asker) => this.#tradePort(port, asker),
      wallNow: () => Date.now(),
      onLoad: (result) => {
        this.#loads[result]++
      },
    }
    this.#served = options.sources.map((source) => new Served(source, this.#parts))
    this.#watcher = new FileWatcher(() => void this.reload(), options.watch)
    this.#telemetry = telemetryServer({
      unready: (question) => this.unready(question),
      unknownUpstreams: (names) => this.unknownUpstreams(names),
      configz: () => this.configz(),
      metrics: (format) => {
        const numbers = {
          eventLoopDelayMs: this.#delay.takeMaxMs(),
          loads: this.#loads,
          tlsReloadFailures: this.#tls.reloadFailures,
        }
        return metricsText(this.#served, numbers, format)
      },
    })
    this.#admin = adminServer({
      upstreams: () =>
        upstreamsReport(this.#served, {
          version: PRODUCT_VERSION,
          pod: options.podName,
          zone: options.zone ?? null,
          startedAt: this.#startedAt.toISOString(),
          isDraining: this.#isDraining,
          logLevel: log.level,
        }),
      drain: () => void this.drain(),
      quit: () => options.onQuit(),
      setCircuit: (wish) => this.#setCircuit(wish),
      setLogLevel: (level) => {
        log.level = level
      },
    })
  }

  #setCircuit({ to, ambassador, upstream, endpoint }: CircuitWish): number | string {
    const found = this.#served
      .filter(({ name }) => ambassador === null || name === ambassador)
      .flatMap(({ compiled }) => compiled.map(({ cluster }) => cluster).filter(({ name }) => name === upstream))
    const [cluster] = found
    if (cluster === undefined) return `there is no upstream '${upstream}', GET /upstreams names them`
    if (found.length > 1) return `several Ambassadors have an upstream '${upstream}', add &ambassador=NAME`
    const count = cluster.forceCircuits(to, endpoint)
    if (endpoint !== null && count === 0) return `upstream '${upstream}' has no endpoint '${endpoint}', use IP:PORT`
    this.#options.log.warn(
      { cluster: upstream, detail: `${to}: ${endpoint ?? 'all endpoints'}` },
      'circuits were set by the admin port',
    )
    return count
  }

  get telemetryPort(): number {
    return this.#telemetry.port
  }

  get adminPort(): number {
    return this.#admin.port
  }

  /** Connections of the application, those in the middle of work among them. */
  get connections(): { readonly open: number; readonly busy: number } {
    return this.#served.reduce(
      (sum, { connections: { open, busy } }) => ({ open: sum.open + open, busy: sum.busy + busy }),
      { open: 0, busy: 0 },
    )
  }

  /**
   * Telemetry first, so that whoever watches sees the rest happen; then the data ports, which answer before discovery has found
   * anything: a request that comes early is held, not refused.
   * @throws {StartError} when a port that is needed belongs to another process
   * @throws {ServerPortError} the same of the telemetry or admin port
   */
  async start(): Promise<void> {
    const { telemetryPort, adminPort } = this.#options
    await this.#telemetry.listen(telemetryPort, 'any', 'telemetry')
    await this.#admin.listen(adminPort, 'loopback', 'admin')
    this.#watcher.setPaths(this.#served.flatMap((served) => served.paths))
    await this.reload()
    for (const served of this.#served) {
      const { rejected, name } = served.report()
      const owner = this.#portOwner(served.wantedPort ?? 0, served) ?? this.#socketOwner(served.wantedSocket, served)
      const isForeign = rejected?.reason === 'PortInUse' && owner === null
      if (isForeign) throw new StartError(`ambassador '${name}': ${rejected.message}`)
    }
    this.#delay.start()
    this.#trim.start()
  }

  /** Reads everything anew and puts in force what changed. Calls that come while one runs are one more run after it. */
  reload(): Promise<void> {
    this.#isReloadWanted = true
    this.#reloading ??= this.#reload().finally(() => {
      this.#reloading = null
    })
    return this.#reloading
  }

  async #reload(): Promise<void> {
    while (this.#isReloadWanted && !this.#isDraining) {
      this.#isReloadWanted = false
      this.#tls.reload()
      for (const served of this.#served) await served.reload()
      // A port that one Ambassador has just left may be the one that another waits for.
      for (const served of this.#served) if (served.waitsForPort) await served.reload()
      const isNewPath = this.#watcher.setPaths(this.#served.flatMap((served) => served.paths))
      if (isNewPath) this.#isReloadWanted = true
    }
    if (this.#portRetry !== null) clearTimeout(this.#portRetry)
    this.#portRetry = null
    if (!this.#isDraining && this.#served.some((served) => served.waitsForPort)) {
      this.#portRetry = setTimeout(() => void this.reload(), PORT_RETRY_MS)
      this.#portRetry.unref()
    }
  }

  /** Serves exactly these from now on: sources of a name that is served already replace its source, others are added or drained. */
  async replace(sources: readonly ConfigSource[]): Promise<void> {
    const key = ({ namespace, name }: { namespace: string; name: string }) => `${namespace}/${name}`
    const wanted = new Set(sources.map(key))
    const leaving = this.#served.filter((served) => !wanted.has(key(served)))
    this.#served = sources.map((source) => {
      const served = this.#served.find((each) => key(each) === key(source))
      served?.setSource(source)
      return served ?? new Served(source, this.#parts)
    })
    // Their ports are free once they no longer listen; their connections may take longer to end.
    for (const served of leaving) void served.drain().then(() => served.destroy())
    await new Promise((resolve) => setImmediate(resolve))
    await this.reload()
  }

  #portOwner(port: number, asker: Served): string | null {
    if (port === this.telemetryPort) return 'the telemetry of this sidecar'
    if (port === this.adminPort) return 'the administration of this sidecar'
    const owner = this.#served.find((served) => served !== asker && served.port === port)
    return owner === undefined ? null : `Ambassador '${owner.name}' of this pod`
  }

  #socketOwner(path: string | null, asker: Served): string | null {
    const owner = this.#served.find((served) => served !== asker && path !== null && served.socketPath === path)
    return owner === undefined ? null : `Ambassador '${owner.name}' of this pod`
  }

  /**
   * Ambassadors that want each other's ports, two or in a ring, would wait for each other for ever: the one that is asked last
   * trades its listener for the one that it wants.
   */
  #tradePort(port: number, asker: Served): Listener | null {
    const holderOf = (wanted: number | null) => this.#served.find((served) => wanted !== null && served.port === wanted)
    const first = holderOf(port)
    let each = first
    for (let steps = 0; each !== undefined && each !== asker && steps < this.#served.length; steps++)
      each = each.waitsForPort ? holderOf(each.wantedPort) : undefined
    return first !== undefined && first !== asker && each === asker ? first.exchange(asker) : null
  }

  /** Reasons why the sidecar is not ready, each a sentence; empty when it is. */
  unready(question: Partial<ReadyQuestion> = {}): readonly string[] {
    if (this.#isDraining) return DRAINING
    return this.#served.flatMap((served) =>
      this.#whyUnready(served, question).map((reason) => `ambassador '${served.name}': ${reason}`),
    )
  }

  #whyUnready(served: Served, { isStartup = false, upstreams = [] }: Partial<ReadyQuestion> = {}): readonly string[] {
    if (served.config === null) return [served.report().rejected?.message ?? 'no config was read yet']
    if (served.port === null) return ['its port is not bound']
    const wantsAll = this.#options.readiness === 'UpstreamHealthy' && !isStartup
    const reasons: string[] = []
    for (const { cluster, tls, credential, login } of served.compiled) {
      if (!wantsAll && !upstreams.some((name) => isNamed(name, served.name, cluster.name))) continue
      const why = tls?.context === null ? tls.failure : (credential?.failure ?? login?.failure ?? unhealthy(cluster))
      if (why !== null) reasons.push(`upstream '${cluster.name}': ${why}`)
    }
    return reasons
  }

  unknownUpstreams(names: readonly string[]): string | null {
    const known = this.#served.flatMap(({ name, compiled }) => compiled.map(({ cluster }) => [name, cluster.name]))
    const unknown = names.filter(
      (name) => !known.some(([ambassador = '', upstream = '']) => isNamed(name, ambassador, upstream)),
    )
    if (unknown.length === 0) return null
    const there = known.map((each) => each.join('/')).join(', ')
    return `there is no upstream '${unknown.join("', '")}', use one of ${there}`
  }

  configz(): Configz {
    return {
      version: PRODUCT_VERSION,
      pod: this.#options.podName,
      startedAt: this.#startedAt.toISOString(),
      ambassadors: this.#served.map((served) => ({
        ...served.report(),
        unready: this.#isDraining ? DRAINING : this.#whyUnready(served),
      })),
    }
  }

  /** Takes no more connections and ends the open ones at their next boundary; telemetry goes on. Resolves when none is left. */
  async drain(): Promise<void> {
    if (!this.#isDraining) this.#options.log.info({}, 'draining')
    this.#isDraining = true
    await Promise.all(this.#served.map((served) => served.drain()))
  }

  /**
   * Stops: lets the application go first when everything was told to stop at once (`Legacy`), then drains, both together within
   * drainMs, and cuts what is left. Resolves when everything is closed.
   * @param order as the process was told to stop; the sidecar mode unless a person is waiting
   */
  async stop(order: SidecarMode = this.#options.sidecarMode): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    const { drainMs, log } = this.#options
    const deadline = performance.now() + drainMs
    log.info({ detail: order, durationMs: drainMs }, 'stopping')
    if (order === 'Legacy' && !this.#isDraining) await this.#untilApplicationIsGone(deadline)
    const drained = this.drain()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), Math.max(0, deadline - performance.now()))
    })
    if ((await Promise.race([drained, late])) === 'late') {
      log.warn({ count: this.connections.open, durationMs: drainMs }, 'connections are cut, they did not end in time')
    }
    clearTimeout(timer)
    this.#watcher.close()
    this.#delay.stop()
    this.#trim.stop()
    if (this.#portRetry !== null) clearTimeout(this.#portRetry)
    await Promise.all(this.#served.map((served) => served.destroy()))
    await Promise.all([this.#telemetry.close(), this.#admin.close()])
    log.info({}, 'stopped')
  }

  /**
   * In the legacy order the application got its SIGTERM with ours and may go on for as long as the grace period, with connections
   * that it opens only now. So everything is served as before until it has had none for a while, or the time is nearly over: a
   * tenth of it, at most 2 s, is kept for the drain.
   */
  async #untilApplicationIsGone(deadline: number): Promise<void> {
    const { drainMs } = this.#options
    const end = deadline - Math.min(2000, drainMs / 10)
    const quietMs = Math.min(QUIET_MS, drainMs / 2)
    let quietSince = performance.now()
    while (performance.now() < end && performance.now() - quietSince < quietMs) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
      if (this.connections.open > 0) quietSince = performance.now()
    }
  }
}

const DRAINING = ['draining'] as const

/** Whether a name means this upstream: its own, that of its Ambassador, or both. */
function isNamed(name: string, ambassador: string, upstream: string): boolean {
  return name === upstream || name === ambassador || name === `${ambassador}/${upstream}`
}

function unhealthy(cluster: Served['compiled'][number]['cluster']): string | null {
  // Its endpoints come with the requests.
  if (cluster.hosts !== null) return null
  if (!cluster.isReady) return cluster.discoveryFailure ?? 'its endpoints are not known yet'
  // A breaker whose open time has passed counts as up: only traffic can probe it, and a pod that is not ready gets none.
  const time = refreshClock()
  const isUp = [...cluster.endpoints].some((endpoint) => endpoint.isWell(time) && endpoint.isAvailable(time))
  if (isUp) return null
  const why = new Set([...cluster.endpoints].flatMap(({ lastError }) => (lastError === null ? [] : [lastError.reason])))
  const last = why.size === 0 ? '' : `, last error ${[...why].sort().join(', ')}`
  return `no endpoint is available by its circuit breaker, its checks and its attempts${last}`
}
