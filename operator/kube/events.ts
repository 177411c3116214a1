/** Events on objects for people to read: aggregated, within a budget, never waited for. */

import { type Log, silentLog } from '../../common/log.ts'
import { FIELD_MANAGER } from '../../common/names.ts'
import type { KubeClient } from './client.ts'
import { type Clock, systemClock } from './clock.ts'
import type { KubeObject } from './objects.ts'
import { type Rate, TokenBucket } from './token-bucket.ts'

/** What an event is about. */
export interface Regarding {
  readonly apiVersion: string
  readonly kind: string
  readonly namespace: string
  readonly name: string
  readonly uid: string
}

export interface KubeEvent {
  readonly type: 'Normal' | 'Warning'
  /** One CamelCase word. */
  readonly reason: string
  /** What we did or tried when it happened, one CamelCase word. */
  readonly action: string
  /** For a person; cut at 1024 bytes. */
  readonly message: string
}

/** What code that records events depends on. */
export interface EventSink {
  record(regarding: Regarding, event: KubeEvent): void
}

export interface EventRecorderOptions {
  readonly client: KubeClient
  /** Name of this process, in every event. */
  readonly instance: string
  /** For all objects together. Default 5 a second, burst 50. */
  readonly overall?: Rate
  readonly clock?: Clock
  readonly log?: Log
  /** Told what became of each event: for metrics. */
  readonly observe?: (result: 'written' | 'aggregated' | 'dropped' | 'failed') => void
}

interface Series {
  count: number
  lastAt: number
  lastWall: number
  writtenAt: number
  /** Path of the event once the API server has it. */
  path: string | undefined
}

/** The same event again within this time becomes a count of the first one. */
const SERIES_MS = 600_000
/** A growing count is written at most this often. */
const SERIES_WRITE_MS = 60_000
/** For one object: one more each 20 s. */
const PER_OBJECT: Rate = { perSecond: 0.05, burst: 10 }

/** Objects and series that are remembered at most; the oldest goes first. */
const MAX_REMEMBERED = 5000

export class EventRecorder implements EventSink {
  readonly #options: EventRecorderOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #series = new Map<string, Series>()
  readonly #budgets = new Map<string, TokenBucket>()
  readonly #overall: TokenBucket
  readonly #inFlight = new Set<Promise<void>>()

  constructor(options: EventRecorderOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    this.#overall = new TokenBucket(options.overall ?? { perSecond: 5, burst: 50 }, () => this.#clock.now())
  }

  /** Takes note and returns at once. */
  record(regarding: Regarding, event: KubeEvent): void {
    const key = [regarding.uid, event.type, event.reason, event.action, event.message].join('\0')
    const now = this.#clock.now()
    const known = this.#series.get(key)
    if (known !== undefined && now - known.lastAt < SERIES_MS) {
      known.count++
      known.lastAt = now
      known.lastWall = this.#clock.wall()
      if (known.path !== undefined && now - known.writtenAt >= SERIES_WRITE_MS && this.#overall.tryTake()) {
        known.writtenAt = now
        this.#send(this.#count(known))
      } else this.#options.observe?.('aggregated')
      return
    }
    if (!this.#budget(regarding.uid).tryTake() || !this.#overall.tryTake()) {
      this.#options.observe?.('dropped')
      return
    }
    const series: Series = { count: 1, lastAt: now, lastWall: this.#clock.wall(), writtenAt: now, path: undefined }
    remember(this.#series, key, series)
    this.#send(this.#create(regarding, event, series))
  }

  /** Resolves when what was sent is answered; for tests and the end of the process. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight)
  }

  #send(request: Promise<void>): void {
    const sent = request
      .then(() => this.#options.observe?.('written'))
      .catch((error: unknown) => {
        this.#options.observe?.('failed')
        this.#log.debug({ resource: 'events', err: error }, 'event not written')
      })
      .finally(() => this.#inFlight.delete(sent))
    this.#inFlight.add(sent)
  }

  async #create(regarding: Regarding, event: KubeEvent, series: Series): Promise<void> {
    const wall = series.lastWall
    const suffix = `${wall.toString(16)}${Math.floor(Math.random() * 0x1000000)
      .toString(16)
      .padStart(6, '0')}`
    const collection = `/apis/events.k8s.io/v1/namespaces/${regarding.namespace}/events`
    const created = await this.#options.client.request<KubeObject>({
      method: 'POST',
      path: collection,
      timeoutMs: 5000,
      body: {
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { name: `${regarding.name.slice(0, 230)}.${suffix}`, namespace: regarding.namespace },
        eventTime: microTime(wall),
        reportingController: FIELD_MANAGER,
        reportingInstance: this.#options.instance.slice(0, 128),
        action: event.action,
        reason: event.reason,
        type: event.type,
        note: cut(event.message, 1024),
        regarding,
      },
    })
    series.path = `${collection}/${created.metadata.name}`
  }

  async #count(series: Series): Promise<void> {
    await this.#options.client.request({
      method: 'PATCH',
      path: series.path!,
      timeoutMs: 5000,
      contentType: 'application/merge-patch+json',
      body: { series: { count: series.count, lastObservedTime: microTime(series.lastWall) } },
    })
  }

  #budget(uid: string): TokenBucket {
    let bucket = this.#budgets.get(uid)
    if (bucket === undefined) {
      bucket = new TokenBucket(PER_OBJECT, () => this.#clock.now())
      remember(this.#budgets, uid, bucket)
    }
    return bucket
  }
}

function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key)
  map.set(key, value)
  if (map.size > MAX_REMEMBERED) map.delete(map.keys().next().value!)
}

/** Kubernetes' MicroTime: six digits of fraction. */
function microTime(wall: number): string {
  return new Date(wall).toISOString().replace('Z', '000Z')
}

/** At most `bytes` bytes of UTF-8, never half a character. */
function cut(text: string, bytes: number): string {
  if (Buffer.byteLength(text) <= bytes) return text
  let short = Buffer.from(text)
    .subarray(0, bytes - 3)
    .toString('utf8')
  if (short.endsWith('\ufffd')) short = short.slice(0, -1)
  return `${short}...`
}
