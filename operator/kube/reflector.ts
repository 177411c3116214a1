/** Keeps a local copy of what an API server holds, by list and watch, whatever goes wrong on the way. */
import { isDeepStrictEqual } from 'node:util'
import { type Log, silentLog } from '../../common/log.ts'
import { Backoff } from './backoff.ts'
import type { KubeClient } from './client.ts'
import { type Clock, sleep, systemClock, type Timer } from './clock.ts'
import { ApiError, isAborted, retryAfterMs } from './errors.ts'
import { lines } from './lines.ts'
import { type KubeList, type KubeObject, keyOf, type WatchEvent } from './objects.ts'
import { type Change, type IndexFunctions, type ReadStore, Store } from './store.ts'

export interface ReflectorOptions<T> {
  /** For logs and metrics: `ambassadors`, `pods-injected`. */
  readonly name: string
  readonly client: KubeClient
  /** Of the collection: `/api/v1/pods`. */
  readonly path: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
  /** Asks for metadata alone (PartialObjectMetadata). Default false. */
  readonly metadataOnly?: boolean
  /** What is kept of an object; undefined: it is not kept. The object itself must not be held on to. */
  readonly transform: (object: KubeObject) => T | undefined
  readonly indices?: IndexFunctions<T>
  /** Told each change after it is in the store; a projection that did not change is no change. */
  readonly onChange?: (change: Change<T>) => void
  /** Objects per page of a list. Default 500. */
  readonly pageSize?: number
  /** A watch without any event, not even a bookmark (the API server sends one a minute), for this long is taken for dead. Default 150 s. */
  readonly idleMs?: number
  /** Ceilings of the wait after failures. Default 200 ms and 30 s. */
  readonly backoff?: { readonly initialMs?: number; readonly maxMs?: number }
  readonly log?: Log
  readonly clock?: Clock
  readonly random?: () => number
  /** Told why a list or watch ended early, by the reason of ApiError: for metrics. */
  readonly onTrouble?: (reason: string) => void
}

/** Longest life of one watch; each lives 80 to 100 % of it, so that replicas do not come back at once. */
const WATCH_SECONDS = 300

/** After this many watches in a row that failed at once, the resourceVersion itself is suspected and the list is read again. */
const WATCH_FAILURES_BEFORE_RELIST = 5

/** After this many lists whose continue token expired half-way, the list is asked for in one piece. */
const EXPIRED_LISTS_BEFORE_WHOLE = 3

export class Reflector<T> {
  readonly #options: ReflectorOptions<T>
  readonly #store: Store<T>
  /** resourceVersion of each kept item, so that an answer to our own write and the watch can come in any order. */
  readonly #versions = new Map<string, string>()
  readonly #clock: Clock
  readonly #log: Log
  readonly #random: () => number
  readonly #backoff: Backoff
  readonly #synced = Promise.withResolvers<void>()
  #stopped = new AbortController()
  #loop: Promise<void> | undefined
  #isSynced = false
  #lastEventAt: number
  /** Where the next watch starts; empty: list first. */
  #resourceVersion = ''
  #watchFailures = 0
  #expiredLists = 0

  constructor(options: ReflectorOptions<T>) {
    this.#options = options
    this.#store = new Store(options.indices)
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    this.#random = options.random ?? Math.random
    this.#backoff = new Backoff({ ...options.backoff, random: this.#random })
    this.#lastEventAt = this.#clock.now()
  }

  get name(): string {
    return this.#options.name
  }

  get store(): ReadStore<T> {
    return this.#store
  }

  /** Whether the first list is complete. It stays true through every later failure: what is known keeps serving. */
  get isSynced(): boolean {
    return this.#isSynced
  }

  /** Seconds since the API server last said anything about this collection (an event, a bookmark or a list). */
  stalenessSeconds(): number {
    return Math.max(0, (this.#clock.now() - this.#lastEventAt) / 1000)
  }

  /** Resolves with the first complete list; never rejects, because the reflector never gives up. */
  synced(): Promise<void> {
    return this.#synced.promise
  }

  /** Starts listing and watching. Does nothing when it runs already. */
  start(): void {
    if (this.#loop !== undefined) return
    this.#stopped = new AbortController()
    this.#lastEventAt = this.#clock.now()
    this.#loop = this.#run(this.#stopped.signal)
  }

  /** Ends the watch; resolves when nothing runs any more. The contents stay readable. */
  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#loop
    this.#loop = undefined
  }

  /**
   * Takes in the API server's answer to a write of ours, so that the next decision does not see the state before it.
   * Only when the object is kept already and the answer is newer: a deletion that the watch told first wins.
   */
  observe(object: KubeObject): void {
    const key = keyOf(object.metadata)
    const version = this.#versions.get(key)
    if (version === undefined || !isNewer(object.metadata.resourceVersion, version)) return
    this.#upsert(key, object)
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let waitMs = 0
      try {
        if (this.#resourceVersion === '') await this.#list(signal)
        if (signal.aborted) break // an abort that is over tells no new listener
        await this.#watch(signal)
      } catch (error) {
        if (signal.aborted || isAborted(error)) break
        waitMs = this.#fail(error)
      }
      if (waitMs > 0) await sleep(this.#clock, waitMs, signal)
    }
  }

  /** Decides what a failure means for the next round, and how long to wait before it. */
  #fail(error: unknown): number {
    const gone = error instanceof ApiError && error.status === 410
    if (gone) this.#resourceVersion = ''
    else if (++this.#watchFailures >= WATCH_FAILURES_BEFORE_RELIST) {
      this.#watchFailures = 0
      this.#resourceVersion = ''
    }
    const reason = error instanceof ApiError ? error.reason : 'Reset'
    this.#options.onTrouble?.(reason)
    const waitMs = this.#backoff.next(retryAfterMs(error))
    const fields = { resource: this.name, reason, durationMs: waitMs, err: error }
    // The first failure is everyday life (a rolling API server); the ones that stay are for a person to see.
    if (this.#backoff.failures < 3) this.#log.debug(fields, 'watch failed, trying again')
    else this.#log.warn(fields, 'watch keeps failing, trying again')
    return waitMs
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { client, path, transform, pageSize = 500 } = this.#options
    const whole = this.#expiredLists >= EXPIRED_LISTS_BEFORE_WHOLE
    const found = new Map<string, { item: T; version: string }>()
    let token: string | undefined
    let resourceVersion = ''
    do {
      const page: KubeList = await client
        .request<KubeList>({
          path,
          query: { ...this.#selectors(), limit: whole ? undefined : pageSize, continue: token },
          accept: this.#accept('List'),
          timeoutMs: 60_000,
          signal,
        })
        .catch((error: unknown) => {
          if (error instanceof ApiError && error.status === 410) this.#expiredLists++
          throw error
        })
      if (page.items !== null && !Array.isArray(page.items)) {
        throw new ApiError(`GET ${path}: the answer is not a list`, { status: 200, reason: 'Malformed' })
      }
      for (const object of page.items ?? []) {
        const item = transform(object)
        if (item !== undefined) found.set(keyOf(object.metadata), { item, version: object.metadata.resourceVersion })
      }
      token = page.metadata.continue || undefined
      resourceVersion = page.metadata.resourceVersion
    } while (token !== undefined)
    this.#expiredLists = 0
    this.#replace(found)
    this.#resourceVersion = resourceVersion
    this.#alive()
    if (!this.#isSynced) {
      this.#isSynced = true
      this.#log.info({ resource: this.name, count: this.#store.size }, 'cache synced')
      this.#synced.resolve()
    }
  }

  #replace(found: Map<string, { item: T; version: string }>): void {
    for (const key of [...this.#store.keys()]) if (!found.has(key)) this.#remove(key)
    for (const [key, { item, version }] of found) this.#set(key, item, version)
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { client, path, idleMs = 150_000 } = this.#options
    const ended = new AbortController()
    let why: 'idle' | undefined
    let timer: Timer | undefined
    const rewind = (): void => {
      timer?.cancel()
      timer = this.#clock.after(idleMs, () => {
        why = 'idle'
        ended.abort()
      })
    }
    const onStop = (): void => ended.abort()
    signal.addEventListener('abort', onStop, { once: true })
    const startedAt = this.#clock.now()
    let events = 0
    try {
      rewind()
      const stream = await client.open({
        path,
        query: {
          ...this.#selectors(),
          watch: true,
          allowWatchBookmarks: true,
          resourceVersion: this.#resourceVersion,
          timeoutSeconds: Math.round(WATCH_SECONDS * (0.8 + 0.2 * this.#random())),
        },
        accept: this.#accept(''),
        timeoutMs: 30_000,
        signal: ended.signal,
      })
      try {
        rewind()
        for await (const line of lines(stream as AsyncIterable<Buffer>)) {
          rewind()
          if (line === '') continue
          this.#take(line)
          events++
          this.#watchFailures = 0
          this.#backoff.reset()
        }
      } finally {
        stream.destroy()
      }
      // The server ends a watch at timeoutSeconds: the regular case. One that ends at once and empty is a failure in disguise.
      if (events === 0 && this.#clock.now() - startedAt < 1000) {
        throw new ApiError(`GET ${path}: the watch ended at once`, { status: 0, reason: 'Empty' })
      }
      this.#watchFailures = 0
      this.#backoff.reset()
    } catch (error) {
      if (why === 'idle') {
        throw new ApiError(`GET ${path}: the watch was silent for ${idleMs} ms`, { status: 0, reason: 'Idle' })
      }
      throw error
    } finally {
      timer?.cancel()
      signal.removeEventListener('abort', onStop)
    }
  }

  /** @throws {ApiError} for an ERROR event and for a line that is no event: the watch is then started again from the last good one */
  #take(line: string): void {
    let event: WatchEvent
    try {
      event = JSON.parse(line) as WatchEvent
      if (typeof event?.type !== 'string' || typeof event.object !== 'object' || event.object === null)
        throw new Error('no event')
    } catch (cause) {
      throw new ApiError(`GET ${this.#options.path}: a line of the watch is not an event`, {
        status: 0,
        reason: 'Malformed',
        cause,
      })
    }
    if (event.type === 'ERROR') {
      const { code = 0, reason = 'Unknown', message = 'the watch failed', details } = event.object
      throw new ApiError(`GET ${this.#options.path}: ${message}`, {
        status: code,
        reason,
        retryAfterMs: (details?.retryAfterSeconds ?? 0) * 1000,
      })
    }
    this.#alive()
    const { metadata } = event.object
    if (event.type === 'DELETED') this.#remove(keyOf(metadata))
    else if (event.type === 'ADDED' || event.type === 'MODIFIED') {
      const key = keyOf(metadata)
      const version = this.#versions.get(key)
      if (version === undefined || !isNewer(version, metadata.resourceVersion)) this.#upsert(key, event.object)
    }
    this.#resourceVersion = metadata.resourceVersion
  }

  #upsert(key: string, object: KubeObject): void {
    const item = this.#options.transform(object)
    if (item === undefined) this.#remove(key)
    else this.#set(key, item, object.metadata.resourceVersion)
  }

  #set(key: string, item: T, version: string): void {
    this.#versions.set(key, version)
    const before = this.#store.get(key)
    if (before !== undefined && isDeepStrictEqual(before, item)) return
    this.#store.put(key, item)
    this.#tell({ key, before, after: item })
  }

  #remove(key: string): void {
    this.#versions.delete(key)
    const before = this.#store.put(key, undefined)
    if (before !== undefined) this.#tell({ key, before, after: undefined })
  }

  /** A listener that throws must not cost us the watch, nor the others the event. */
  #tell(change: Change<T>): void {
    try {
      this.#options.onChange?.(change)
    } catch (error) {
      this.#log.error({ resource: this.name, err: error }, 'a listener failed')
      this.#options.onTrouble?.('Listener')
    }
  }

  #alive(): void {
    this.#lastEventAt = this.#clock.now()
  }

  #selectors(): { labelSelector?: string; fieldSelector?: string } {
    const { labelSelector, fieldSelector } = this.#options
    return { labelSelector, fieldSelector }
  }

  #accept(suffix: 'List' | ''): string {
    return this.#options.metadataOnly === true
      ? `application/json;as=PartialObjectMetadata${suffix};g=meta.k8s.io;v=v1`
      : 'application/json'
  }
}

/** Whether resourceVersion `a` is newer than `b`. They are decimal numbers in every API server that exists; other text counts as newer. */
function isNewer(a: string, b: string): boolean {
  if (a === b) return false
  try {
    return BigInt(a) > BigInt(b)
  } catch {
    return true
  }
}
