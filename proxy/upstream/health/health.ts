/** The active checks of a cluster: each endpoint at its own pace, one check at a time, until it leaves. */
import type { HealthCheckConfig, ProxyProtocol } from '../../../common/proxy-config.ts'
import type { DialGuard } from '../../policy/dial-guard.ts'
import type { Random } from '../../policy/policy.ts'
import { now } from '../../runtime/clock.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { UpstreamTls } from '../../tls/upstream-tls.ts'
import type { Endpoint } from '../endpoint.ts'
import { check, type Prober } from './check.ts'

export interface HealthOptions {
  /** Null: nothing is checked, and every endpoint counts as healthy. */
  readonly config: HealthCheckConfig | null
  readonly tls: UpstreamTls | null
  readonly proxyProtocol: ProxyProtocol | null
  /** What must not be dialled, be it for a check. */
  readonly guard: DialGuard
  /** See CheckTarget. */
  readonly prober: Prober | null
}

export interface HealthParts {
  readonly random: Random
  /** An endpoint has become healthy (null) or unhealthy, with the reason. */
  readonly onHealth: (endpoint: Endpoint, failure: string | null) => void
  /** A check could not be made or failed: discovery may look again. */
  readonly onFailedCheck: (endpoint: Endpoint) => void
}

/** The state of one endpoint. */
interface Checked {
  readonly timer: CoarseTimer
  cancel: () => void
  /** Checks in a row that ended unlike the state that the endpoint is in. */
  streak: number
}

/** A gap between two checks is longer or shorter by this share of it, so that the sidecars of a fleet do not check together. */
const JITTER = 0.1

export class Health {
  #options: HealthOptions
  readonly #parts: HealthParts
  readonly #checked = new Map<Endpoint, Checked>()

  constructor(options: HealthOptions, parts: HealthParts) {
    this.#options = options
    this.#parts = parts
  }

  /** Checks exactly these. A new one counts as healthy until its checks say otherwise, and is checked within its first interval. */
  setEndpoints(endpoints: Iterable<Endpoint>): void {
    const wanted = new Set(this.#options.config === null ? [] : endpoints)
    for (const endpoint of this.#checked.keys()) if (!wanted.has(endpoint)) this.#forget(endpoint)
    for (const endpoint of wanted) {
      if (this.#checked.has(endpoint)) continue
      const timer = new CoarseTimer(() => this.#check(endpoint))
      this.#checked.set(endpoint, { timer, cancel: () => {}, streak: 0 })
      timer.set(now() + this.#parts.random() * this.#interval * JITTER)
    }
  }

  /** Takes over a changed configuration; what is known of the endpoints stays, unless there are no checks any more. */
  update(options: HealthOptions, endpoints: Iterable<Endpoint>): void {
    const before = this.#options.config
    this.#options = options
    if (JSON.stringify(before) !== JSON.stringify(options.config)) {
      for (const [endpoint, checked] of this.#checked) {
        checked.cancel()
        checked.cancel = () => {}
        checked.streak = 0
        this.#schedule(endpoint)
      }
    }
    this.setEndpoints(endpoints)
  }

  close(): void {
    for (const endpoint of [...this.#checked.keys()]) this.#forget(endpoint)
  }

  get #interval(): number {
    return this.#options.config?.intervalMs ?? 0
  }

  #forget(endpoint: Endpoint): void {
    const checked = this.#checked.get(endpoint)
    checked?.cancel()
    checked?.timer.release()
    this.#checked.delete(endpoint)
    endpoint.isHealthy = true
  }

  #schedule(endpoint: Endpoint): void {
    const jitter = 1 + JITTER * (2 * this.#parts.random() - 1)
    this.#checked.get(endpoint)?.timer.set(now() + this.#interval * jitter)
  }

  #check(endpoint: Endpoint): void {
    const checked = this.#checked.get(endpoint)
    const { config, tls, proxyProtocol, guard, prober } = this.#options
    if (checked === undefined || config === null) return
    const hasNoCredential = config.probe.kind === prober?.kind && prober.isUnable
    if (hasNoCredential || (config.probe.kind !== 'tcp' && tls !== null && tls.context === null)) {
      // Not the fault of the endpoint, and nothing can be known of it.
      this.#schedule(endpoint)
      return
    }
    const target = { address: endpoint, guard, tls, proxyProtocol, prober, config }
    checked.cancel = check(target, (failure, isSilent = false, isUnable = false) => {
      checked.cancel = () => {}
      this.#schedule(endpoint)
      if (isUnable) return
      endpoint.heard(isSilent)
      this.#ended(endpoint, checked, config, failure)
    })
  }

  #ended(endpoint: Endpoint, checked: Checked, config: HealthCheckConfig, failure: string | null): void {
    if (failure !== null) this.#parts.onFailedCheck(endpoint)
    const isSame = (failure === null) === endpoint.isHealthy
    checked.streak = isSame ? 0 : checked.streak + 1
    const { healthyThreshold, unhealthyThreshold } = config
    if (checked.streak < (endpoint.isHealthy ? unhealthyThreshold : healthyThreshold)) return
    if (isSame) return
    checked.streak = 0
    endpoint.isHealthy = failure === null
    this.#parts.onHealth(endpoint, failure)
  }
}
