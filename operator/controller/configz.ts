/** Asks sidecars what they have in force. Each pod at its own pace: quickly while something is awaited, slowly in peace. */
import http from 'node:http'
import type { AmbassadorReport, Configz, RefReport } from '../../common/configz.ts'
import { type Log, silentLog } from '../../common/log.ts'
import { backoffMs } from '../kube/backoff.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import { WorkQueue } from '../kube/workqueue.ts'
import type { InjectedPod } from './pods.ts'
import type { SidecarReport, SidecarState } from './world.ts'

/** How a report is fetched; a test has its own. @throws {Error} whose message says why there is none */
export type FetchConfigz = (ip: string, port: number, signal: AbortSignal) => Promise<unknown>

export interface Trouble {
  readonly namespace: string
  readonly ambassador: string
  readonly pod: string
  readonly reason: string
  readonly message: string
}

export interface ReportsOptions {
  /** The pod with this key now, or undefined. */
  readonly pod: (key: string) => InjectedPod | undefined
  /** How many pods there are: the slow pace gets slower with them. */
  readonly podCount: () => number
  /** Whether the report of this pod is what one waits for. */
  readonly isSettled: (pod: InjectedPod) => boolean
  /** Told a pod whose report became another. */
  readonly onReport: (pod: InjectedPod) => void
  /** Told a new trouble on the data path of a sidecar. */
  readonly onTrouble?: (trouble: Trouble) => void
  readonly fetch?: FetchConfigz
  /** Sidecars that are asked at the same time. Default 64. */
  readonly concurrency?: number
  /** Questions a second. Default 400, burst 1000. */
  readonly rate?: { readonly perSecond: number; readonly burst: number }
  /** Default 2 s. */
  readonly timeoutMs?: number
  readonly clock?: Clock
  readonly random?: () => number
  readonly log?: Log
}

/** One lost packet is no news: a sidecar is silent after so many questions in a row without an answer. */
const SILENT_AFTER = 2

/** Between questions while something is awaited: a sidecar loads within a second of its kubelet. */
const AWAITED = { initialMs: 200, maxMs: 5_000 }
/** Between questions to a sidecar that does not answer. */
const SILENT = { initialMs: 500, maxMs: 30_000 }

type Entry = {
  readonly uid: string
  report: SidecarAnswers
  /** Questions in a row without an answer. */
  failures: number
  /** Answers in a row that were not what one waits for. */
  awaited: number
  /** Time of the trouble that was told last, by Ambassador. */
  troubles?: Map<string, string>
}

/** Like SidecarReport, for all Ambassadors of the pod. */
type SidecarAnswers =
  | Exclude<SidecarReport, { kind: 'answered' }>
  | { readonly kind: 'answered'; readonly ambassadors: ReadonlyMap<string, SidecarState> }

/** What a sidecar finds out by itself (a Secret that became unusable) is heard of this late, or so late that all pods make 50 questions a second. */
const PEACE_MS = 15_000
const PEACE_SHARE_MS = 20

const UNASKED = { kind: 'unasked' } as const
const STARTING = { kind: 'starting' } as const

export class Reports {
  readonly #options: ReportsOptions
  readonly #clock: Clock
  readonly #queue: WorkQueue
  readonly #entries = new Map<string, Entry>()
  readonly #random: () => number
  /** Thousands of sidecars say the same; each text is kept once. */
  readonly #interned = new Map<string, ReadonlyMap<string, SidecarState>>()

  constructor(options: ReportsOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? Math.random
    this.#queue = new WorkQueue({
      name: 'configz',
      clock: this.#clock,
      log: options.log ?? silentLog,
      concurrency: options.concurrency ?? 64,
      rate: options.rate ?? { perSecond: 400, burst: 1000 },
      work: (key, signal) => this.#ask(key, signal),
    })
  }

  get depth(): number {
    return this.#queue.depth
  }

  /** What is known of a pod's sidecar for one Ambassador of the pod's namespace. */
  of(key: string, pod: InjectedPod, ambassador: string): SidecarReport {
    const entry = this.#entries.get(key)
    if (!pod.isRunning) return STARTING
    if (entry === undefined || entry.uid !== pod.uid) return UNASKED
    if (entry.report.kind !== 'answered') return entry.report
    return { kind: 'answered', ambassador: entry.report.ambassadors.get(ambassador) ?? null }
  }

  /** To be called with each change of a pod. `isFirst`: it was there when we came, so nothing is known of when it started. */
  podChanged(key: string, before: InjectedPod | undefined, after: InjectedPod | undefined, isFirst: boolean): void {
    if (after === undefined) {
      this.#entries.delete(key)
      return
    }
    const entry = this.#entries.get(key)
    if (entry === undefined || entry.uid !== after.uid) {
      this.#entries.set(key, {
        uid: after.uid,
        report: isFirst && after.isRunning ? UNASKED : STARTING,
        failures: 0,
        awaited: 0,
      })
    } else if (
      after.restarts !== before?.restarts ||
      after.ip !== before?.ip ||
      (after.isRunning && !before?.isRunning)
    ) {
      // Another process answers from now on: what the old one said is void.
      entry.report = STARTING
      entry.failures = 0
      entry.awaited = 0
    } else if (after.isReady === before?.isReady) return
    if (after.isRunning && after.ip !== '') this.#queue.add(key)
  }

  /** Asks this pod soon: something was published or touched. */
  hurry(key: string, afterMs = 0): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    entry.awaited = 0
    this.#queue.addAfter(key, afterMs)
  }

  async stop(): Promise<void> {
    await this.#queue.shutdown()
  }

  async #ask(key: string, signal: AbortSignal): Promise<number | undefined> {
    const pod = this.#options.pod(key)
    const entry = this.#entries.get(key)
    if (pod === undefined || entry === undefined || !pod.isRunning || pod.ip === '') return undefined
    const answer = await this.#fetch(pod, signal)
    if (signal.aborted || this.#entries.get(key) !== entry || this.#options.pod(key)?.uid !== pod.uid) return undefined
    if (answer instanceof Error) {
      entry.failures++
      if (entry.failures >= SILENT_AFTER) this.#set(entry, pod, { kind: 'silent', message: answer.message })
      return backoffMs(entry.failures, { ...SILENT, random: this.#random })
    }
    entry.failures = 0
    this.#set(entry, pod, { kind: 'answered', ambassadors: this.#keep(answer, pod) })
    this.#tellTroubles(entry, pod, answer)
    if (!this.#options.isSettled(pod)) return backoffMs(++entry.awaited, { ...AWAITED, random: this.#random })
    entry.awaited = 0
    const slowMs = Math.max(PEACE_MS, this.#options.podCount() * PEACE_SHARE_MS)
    return slowMs * (0.75 + this.#random() / 2)
  }

  async #fetch(pod: InjectedPod, signal: AbortSignal): Promise<Configz | Error> {
    const { fetch = fetchConfigz, timeoutMs = 2000 } = this.#options
    const ended = new AbortController()
    const timer = this.#clock.after(timeoutMs, () => ended.abort(new Error(`no answer within ${timeoutMs} ms`)))
    const onStop = (): void => ended.abort(new Error('stopped'))
    signal.addEventListener('abort', onStop, { once: true })
    try {
      const answer = await fetch(pod.ip, pod.telemetryPort, ended.signal)
      if (!isConfigz(answer)) return new Error('the answer is not a report of a sidecar')
      // An address that was given to another pod meanwhile.
      if (answer.pod !== null && answer.pod !== pod.name) return new Error(`pod '${answer.pod}' answers at its address`)
      return answer
    } catch (error) {
      if (ended.signal.aborted) return ended.signal.reason as Error
      return error instanceof Error ? error : new Error(String(error))
    } finally {
      timer.cancel()
      signal.removeEventListener('abort', onStop)
    }
  }

  #set(entry: Entry, pod: InjectedPod, report: SidecarAnswers): void {
    const before = entry.report
    entry.report = report
    if (!sameReport(before, report)) this.#options.onReport(pod)
  }

  #keep(answer: Configz, pod: InjectedPod): ReadonlyMap<string, SidecarState> {
    const own = answer.ambassadors.filter((each) => each.namespace === pod.namespace)
    const states = own.map((each) => [each.name, reduce(each)] as const)
    const text = JSON.stringify(states)
    const known = this.#interned.get(text)
    if (known !== undefined) return known
    if (this.#interned.size >= 5000) this.#interned.clear()
    const kept = new Map(states)
    this.#interned.set(text, kept)
    return kept
  }

  #tellTroubles(entry: Entry, pod: InjectedPod, answer: Configz): void {
    for (const { namespace, name, lastError } of answer.ambassadors) {
      if (lastError === null || lastError === undefined || namespace !== pod.namespace) continue
      entry.troubles ??= new Map()
      if (entry.troubles.get(name) === lastError.at) continue
      entry.troubles.set(name, lastError.at)
      // An old one is history: it was told by whoever led before us.
      if (this.#clock.wall() - Date.parse(lastError.at) > 300_000) continue
      const { reason, message } = lastError
      this.#options.onTrouble?.({ namespace, ambassador: name, pod: pod.name, reason, message })
    }
  }
}

/** Without times, which differ from pod to pod and decide nothing. */
function reduce({ hash, generation, endpointsHash, rejected, refs, unready }: AmbassadorReport): SidecarState {
  return {
    hash,
    generation,
    endpointsHash: endpointsHash ?? null,
    refs: refs.map(({ ref, state, message }): RefReport => ({ ref, state, message })),
    // An older sidecar does not tell.
    unready: Array.isArray(unready) ? unready.map(String) : [],
    rejected:
      rejected === null
        ? null
        : { hash: rejected.hash, generation: rejected.generation, reason: rejected.reason, message: rejected.message },
  }
}

function sameReport(a: SidecarAnswers, b: SidecarAnswers): boolean {
  if (a.kind !== b.kind) return false
  if (a.kind === 'silent' && b.kind === 'silent') return a.message === b.message
  if (a.kind === 'answered' && b.kind === 'answered') {
    return a.ambassadors === b.ambassadors || JSON.stringify([...a.ambassadors]) === JSON.stringify([...b.ambassadors])
  }
  return true
}

/** Whether it is what common/configz.ts says, as far as we read it. A sidecar of another version may say more. */
export function isConfigz(value: unknown): value is Configz {
  if (value === null || typeof value !== 'object') return false
  const { ambassadors, pod } = value as Partial<Configz>
  if (!Array.isArray(ambassadors) || !(pod === null || typeof pod === 'string')) return false
  return ambassadors.every((each: unknown) => {
    const { namespace, name, hash, refs, rejected } = (each ?? {}) as Partial<AmbassadorReport>
    return (
      typeof namespace === 'string' &&
      typeof name === 'string' &&
      (hash === null || typeof hash === 'string') &&
      Array.isArray(refs) &&
      refs.every((ref) => typeof ref?.state === 'string' && typeof ref.ref?.kind === 'string') &&
      (rejected === null || typeof rejected?.reason === 'string')
    )
  })
}

/** A report with 16 Ambassadors and all their references is some 20 KB. */
const MAX_BYTES = 1024 * 1024

/** GET http://ip:port/configz without a kept connection: the next question is a while away. */
export const fetchConfigz: FetchConfigz = (ip, port, signal) =>
  new Promise((resolve, reject) => {
    const request = http.get({ host: ip, port, path: '/configz', agent: false, signal }, (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > MAX_BYTES) request.destroy(new Error(`the answer is longer than ${MAX_BYTES} bytes`))
        else chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode !== 200) {
          reject(new Error(`the answer has status ${response.statusCode}`))
          return
        }
        try {
          resolve(JSON.parse(Buffer.concat(chunks).toString('utf8')))
        } catch {
          reject(new Error('the answer is not JSON'))
        }
      })
    })
    request.on('error', reject)
  })
