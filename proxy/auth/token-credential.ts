/** A credential that expires: fetched once for everybody, renewed before its end, served until its real end. */
import type { HeaderCredential } from '../policy/credential.ts'

export interface Token {
  readonly value: string
  /** Milliseconds until it expires, counted from the answer; null when the issuer did not say: then it is renewed every hour. */
  readonly lifeMs: number | null
}

/** Where tokens come from. One fetch at a time is under way. */
export interface TokenSource {
  /** Rejects with an error whose message names the issuer, what happened and the remedy; never a secret. */
  fetch(signal: AbortSignal): Promise<Token>
}

/** Share of a token's life after which it is renewed; the rest is there for an issuer that is down. */
const RENEW_AT = 0.8
/** Renewal is moved forward by up to this share, so that the sidecars of a fleet do not ask together. */
const RENEW_JITTER = 0.1
const DEFAULT_LIFE_MS = 3_600_000
const FETCH_TIMEOUT_MS = 10_000
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
/** A token refused by the upstream is renewed at most this often, whatever the upstream keeps answering. */
const FORCED_INTERVAL_MS = 5_000
/** A timer in Node holds at most 2^31-1 ms; longer lives are renewed earlier. */
const MAX_TIMER_MS = 12 * 3_600_000

export interface TokenCredentialOptions {
  readonly source: TokenSource
  /** Told of each fetch that failed, for the log; message as the source gave it. */
  readonly onFailure?: (message: string) => void
  /** Told of each new token: the metric of its expiry. */
  readonly onToken?: (lifeMs: number) => void
  /** What `line` is made of a token. Default: the field Authorization with a bearer token. */
  readonly lineOf?: (value: string) => Buffer
  readonly random?: () => number
}

export class TokenCredential implements HeaderCredential {
  readonly name = 'authorization'
  readonly #options: TokenCredentialOptions
  #line: Buffer | null = null
  /** On the monotonic clock, which no correction of the time of day moves. */
  #endsAt = 0
  #expiresAt: number | null = null
  #failure: string | null = 'no token was fetched yet'
  #failures = 0
  #timer: NodeJS.Timeout | null = null
  #fetching: AbortController | null = null
  #waiters: (() => void)[] = []
  #forcedAt = Number.NEGATIVE_INFINITY
  #isStopped = false

  constructor(options: TokenCredentialOptions) {
    this.#options = options
  }

  /** Begins to fetch. */
  start(): void {
    this.#fetch()
  }

  get line(): Buffer | null {
    if (this.#line !== null && performance.now() >= this.#endsAt) {
      this.#line = null
      this.#failure ??= 'the token expired'
    }
    return this.#line
  }

  get failure(): string | null {
    return this.line === null ? this.#failure : null
  }

  get expiresAt(): number | null {
    return this.line === null ? null : this.#expiresAt
  }

  /** Calls back as soon as the fetch that is under way has ended, at once when none is. For requests that come before the first token. */
  whenSettled(done: () => void): void {
    if (this.#fetching === null) done()
    else this.#waiters.push(done)
  }

  /**
   * The upstream refused `line` with 401: fetches another one, for all requests that were refused together.
   * @returns false when it was done a moment ago, or the line has been replaced since: try again with what is there
   */
  refused(line: Buffer): boolean {
    if (line !== this.#line || this.#isStopped) return false
    // Whichever request or renewal began it: its token is for this request too.
    if (this.#fetching !== null) return true
    if (performance.now() - this.#forcedAt < FORCED_INTERVAL_MS) return false
    this.#forcedAt = performance.now()
    this.#fetch()
    return true
  }

  stop(): void {
    this.#isStopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#fetching?.abort()
    this.#settle()
  }

  #fetch(): void {
    if (this.#fetching !== null || this.#isStopped) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    const abort = new AbortController()
    this.#fetching = abort
    const deadline = setTimeout(
      () => abort.abort(new Error(`no answer within ${FETCH_TIMEOUT_MS} ms`)),
      FETCH_TIMEOUT_MS,
    )
    this.#options.source.fetch(abort.signal).then(
      (token) => {
        clearTimeout(deadline)
        this.#accept(token)
      },
      (error: Error) => {
        clearTimeout(deadline)
        this.#reject(error)
      },
    )
  }

  #accept(token: Token): void {
    this.#fetching = null
    if (this.#isStopped) return
    const problem = tokenProblem(token)
    if (problem !== null) {
      this.#reject(new Error(problem))
      return
    }
    const lifeMs = token.lifeMs ?? DEFAULT_LIFE_MS
    this.#line =
      this.#options.lineOf?.(token.value) ?? Buffer.from(`Authorization: Bearer ${token.value}\r\n`, 'latin1')
    this.#endsAt = token.lifeMs === null ? Number.POSITIVE_INFINITY : performance.now() + token.lifeMs
    this.#expiresAt = token.lifeMs === null ? null : Date.now() + token.lifeMs
    this.#failure = null
    this.#failures = 0
    const random = this.#options.random ?? Math.random
    this.#schedule(lifeMs * (RENEW_AT - RENEW_JITTER * random()))
    this.#options.onToken?.(lifeMs)
    this.#settle()
  }

  #reject(error: Error): void {
    this.#fetching = null
    if (this.#isStopped) return
    this.#failure = error.message
    const random = this.#options.random ?? Math.random
    const bound = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++)
    this.#schedule(bound * (0.5 + 0.5 * random()))
    this.#options.onFailure?.(error.message)
    this.#settle()
  }

  #schedule(ms: number): void {
    this.#timer = setTimeout(() => this.#fetch(), Math.min(ms, MAX_TIMER_MS))
    this.#timer.unref()
  }

  #settle(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const done of waiters) done()
  }
}

/** RFC 6750 section 2.1: what may stand after Bearer. Anything else could end the header line. */
function tokenProblem(token: Token): string | null {
  if (!/^[-A-Za-z0-9._~+/]+=*$/.test(token.value))
    return 'the issuer answered with a token that is not a bearer token (RFC 6750)'
  if (token.lifeMs !== null && token.lifeMs <= 0) return 'the issuer answered with a token that has already expired'
  return null
}
