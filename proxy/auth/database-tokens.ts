/** Tokens that a database takes for a password: one fetch at a time for each server, and used again while enough of its life is left where an issuer must be asked. */
import type { DatabaseTokens } from '../policy/credential.ts'
import type { Token } from './token-credential.ts'

/** Where such tokens come from. */
export interface DatabaseTokenSource {
  /** A token is for one server; else all servers take the same. */
  readonly isPerServer: boolean
  /** It is made here, by keys that are kept: each login gets a new one, and none is older than a change of the keys. */
  readonly isLocal: boolean
  /** Rejects with an error whose message names the issuer, what happened and the remedy; never a secret. */
  fetch(host: string, port: number, signal: AbortSignal): Promise<Token>
}

/** A token is renewed when this share of its life is left; it is looked at by the server only at the login. */
const SPARE = 0.2
/** Of one whose issuer does not say. */
const DEFAULT_LIFE_MS = 300_000
const FETCH_TIMEOUT_MS = 10_000
/** After a fetch that failed nobody is asked again for this long, doubled for each further one up to MAX_RETRY_MS. */
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
/** Servers of one upstream; beyond that the oldest is forgotten. */
const MAX_SERVERS = 256

/** What is known for one server. Times are of the monotonic clock. */
interface Held {
  token: string | null
  renewAt: number
  endsAt: number
  /** In milliseconds since 1970. */
  expiresAt: number
  fetching: Promise<string> | null
  failures: number
  error: Error | null
  retryAt: number
}

export class DatabaseTokenCache implements DatabaseTokens {
  readonly #source: DatabaseTokenSource
  readonly #onFailure: (message: string) => void
  readonly #held = new Map<string, Held>()

  constructor(source: DatabaseTokenSource, onFailure: (message: string) => void) {
    this.#source = source
    this.#onFailure = onFailure
  }

  /** When the token that ends first expires, in milliseconds since 1970; null: there is none. */
  get expiresAt(): number | null {
    const ends = [...this.#held.values()].filter(({ token }) => token !== null).map(({ expiresAt }) => expiresAt)
    return ends.length === 0 ? null : Math.min(...ends)
  }

  async tokenFor(host: string, port: number): Promise<string> {
    const held = this.#heldFor(this.#source.isPerServer ? `${host}:${port}` : '')
    const time = performance.now()
    if (held.token !== null && time < held.renewAt && !this.#source.isLocal) return held.token
    // One that is not over yet is good enough while another cannot be had.
    const usable = held.token !== null && time < held.endsAt ? held.token : null
    if (held.fetching === null && time < held.retryAt) {
      if (usable !== null) return usable
      throw held.error ?? new Error('no token was fetched')
    }
    held.fetching ??= this.#fetch(held, host, port)
    return usable === null ? held.fetching : held.fetching.catch(() => usable)
  }

  #heldFor(key: string): Held {
    const known = this.#held.get(key)
    if (known !== undefined) return known
    const none = {
      token: null,
      renewAt: 0,
      endsAt: 0,
      expiresAt: 0,
      fetching: null,
      failures: 0,
      error: null,
      retryAt: 0,
    }
    this.#held.set(key, none)
    if (this.#held.size > MAX_SERVERS) this.#held.delete(this.#held.keys().next().value as string)
    return none
  }

  async #fetch(held: Held, host: string, port: number): Promise<string> {
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    const aborted = Promise.withResolvers<never>()
    const onAbort = (): void => aborted.reject(new Error(`no token was fetched within ${FETCH_TIMEOUT_MS} ms`))
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      // The vendors' calls cannot be given up; one that ends too late is not waited for.
      const { value, lifeMs } = await Promise.race([this.#source.fetch(host, port, signal), aborted.promise])
      const life = lifeMs ?? DEFAULT_LIFE_MS
      if (value === '' || value.includes('\0') || life <= 0)
        throw new Error('the token that was fetched cannot be used')
      const time = performance.now()
      Object.assign(held, {
        token: value,
        renewAt: time + life * (1 - SPARE),
        endsAt: time + life,
        expiresAt: Date.now() + life,
        failures: 0,
        error: null,
      })
      return value
    } catch (error) {
      held.error = error as Error
      held.retryAt = performance.now() + Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** held.failures++)
      this.#onFailure(held.error.message)
      throw held.error
    } finally {
      held.fetching = null
      signal.removeEventListener('abort', onAbort)
    }
  }
}
