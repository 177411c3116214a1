/** Ambassadors by name: from the cache at once, and from the API server only when the cache does not know enough. */
import { type Clock, sleep } from '../kube/clock.ts'
import type { InjectableAmbassador } from './ambassador.ts'

/** Where Ambassadors come from. operator/main.ts makes one from its caches, the command line from files. */
export interface AmbassadorSource {
  /** From memory; undefined when it is not there. */
  cached(namespace: string, name: string): InjectableAmbassador | undefined
  /**
   * From the API server, past every cache; undefined when it does not exist.
   * @throws whatever keeps the question from being answered
   */
  fetch(namespace: string, name: string, signal: AbortSignal): Promise<InjectableAmbassador | undefined>
  /** Names of the cached Ambassadors of a namespace, for messages. */
  names(namespace: string): readonly string[]
}

/** How long a pod waits for an Ambassador that is not in the cache or whose config is not published yet. */
export const WAIT_MS = 1000
/** How often the cache is looked at meanwhile. */
const POLL_MS = 50
/** How long the API server's "does not exist" is believed: a burst of pods with a typing error asks once. */
const ABSENT_MS = 1000
/** Most names that are remembered as absent. */
const MAX_ABSENT = 1000

export type Found = ReadonlyMap<string, InjectableAmbassador | undefined>

export class Lookup {
  readonly #source: AmbassadorSource
  readonly #clock: Clock
  readonly #asked = new Map<string, Promise<InjectableAmbassador | undefined>>()
  readonly #absentUntil = new Map<string, number>()

  constructor(source: AmbassadorSource, clock: Clock) {
    this.#source = source
    this.#clock = clock
  }

  names(namespace: string): readonly string[] {
    return this.#source.names(namespace)
  }

  /** The warm path: everything known and published, without a promise. Undefined: use find(). */
  known(namespace: string, names: readonly string[]): Found | undefined {
    const found = new Map<string, InjectableAmbassador>()
    for (const name of names) {
      const ambassador = this.#source.cached(namespace, name)
      if (ambassador === undefined || !isDecided(ambassador)) return undefined
      found.set(name, ambassador)
    }
    return found
  }

  /**
   * Everything that can be found out within WAIT_MS and the deadline (of the clock, in milliseconds): one question to the API
   * server for each name that the cache does not know, and, when asked to, a wait for configs that are being published.
   * @throws {Error} when the API server could not be asked
   */
  async find(
    namespace: string,
    names: readonly string[],
    options: { readonly deadline: number; readonly waitForConfig: boolean },
  ): Promise<Found> {
    const until = Math.min(this.#clock.now() + WAIT_MS, options.deadline)
    const found = await Promise.all(names.map((name) => this.#findOne(namespace, name, until, options.waitForConfig)))
    return new Map(names.map((name, i) => [name, found[i]]))
  }

  async #findOne(
    namespace: string,
    name: string,
    until: number,
    waitForConfig: boolean,
  ): Promise<InjectableAmbassador | undefined> {
    let ambassador = this.#source.cached(namespace, name)
    if (ambassador !== undefined && isDecided(ambassador)) return ambassador
    // A cache that lags behind must not refuse a pod: the API server has the last word.
    ambassador = await this.#ask(namespace, name, until)
    while (waitForConfig && ambassador !== undefined && !isDecided(ambassador) && this.#clock.now() + POLL_MS < until) {
      await sleep(this.#clock, POLL_MS)
      ambassador = this.#source.cached(namespace, name) ?? ambassador
    }
    return ambassador
  }

  /** One question per name at a time, whoever waits for the answer. */
  async #ask(namespace: string, name: string, until: number): Promise<InjectableAmbassador | undefined> {
    const key = `${namespace}/${name}`
    const now = this.#clock.now()
    if ((this.#absentUntil.get(key) ?? 0) > now) return undefined
    let asked = this.#asked.get(key)
    if (asked === undefined) {
      asked = this.#fetch(namespace, name, Math.max(1, until - now)).finally(() => this.#asked.delete(key))
      this.#asked.set(key, asked)
    }
    const answer = await asked
    if (answer === undefined) {
      if (this.#absentUntil.size >= MAX_ABSENT) this.#absentUntil.clear()
      this.#absentUntil.set(key, this.#clock.now() + ABSENT_MS)
    }
    return answer
  }

  async #fetch(namespace: string, name: string, timeoutMs: number): Promise<InjectableAmbassador | undefined> {
    const controller = new AbortController()
    const timer = this.#clock.after(timeoutMs, () => controller.abort())
    try {
      return await this.#source.fetch(namespace, name, controller.signal)
    } finally {
      timer.cancel()
    }
  }
}

/** Nothing that comes within a second would change the answer. */
function isDecided({ config, refusal, isDeleting }: InjectableAmbassador): boolean {
  return config !== null || refusal !== null || isDeleting
}
