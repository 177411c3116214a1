/** The attempts of one request that are under way: one, or two when the first is slow, of which the first answer counts. */
import type { Outcome } from '../../policy/policy.ts'
import { HttpPool } from '../../upstream/http-pool.ts'
import { Attempt } from './attempt.ts'
import type { AttemptOwner } from './attempt-owner.ts'

export class Attempts {
  readonly #owner: AttemptOwner
  /** The one that the exchange is about. */
  current: Attempt
  /** The second one, while both are under way. */
  #rival: Attempt | null = null
  /** For the next time that there are two. */
  #spare: Attempt | null = null
  /** This request had its second attempt. */
  #wasHedged = false

  constructor(owner: AttemptOwner) {
    this.#owner = owner
    this.current = new Attempt(owner)
  }

  /** A new exchange begins. */
  reset(): void {
    this.#wasHedged = false
    this.current.reset()
  }

  /** Whether a second attempt is worth a timer: the request can be sent twice and was not yet. */
  get mayHedge(): boolean {
    const { isIdempotent, isUpgrade, request } = this.#owner
    return !this.#wasHedged && isIdempotent && !isUpgrade && request.isComplete && request.isReplayable
  }

  /**
   * Sends the request a second time, to another endpoint if there is one: when the first attempt still waits for its answer, a
   * connection is to be had without waiting, and the retry budget allows it. Otherwise nothing happens.
   */
  hedge(time: number): void {
    const first = this.current
    const { target, tried, hash } = this.#owner
    const { cluster, cells } = target.upstream
    if (first.state !== 'sent' || first.response.isAnswering || !this.mayHedge) return
    this.#wasHedged = true
    const endpoint = cluster.pick(time, first.asked === null ? tried : [...tried, first.asked], hash)
    if (typeof endpoint === 'string') return
    const hasConnection =
      HttpPool.of(cluster, endpoint).idle > 0 || cluster.connections.used < cluster.config.limits.maxConnections
    if (!hasConnection || !cluster.budget.tryRetry(time)) return
    const second = this.#spare ?? new Attempt(this.#owner)
    this.#spare = null
    this.#rival = second
    cells.hedged.sent++
    second.reset()
    second.isRetry = true
    second.begin(time, endpoint, false)
  }

  /** One of two has ended without an answer that counts: the other one goes on. False: there is no other one. */
  leave(attempt: Attempt): boolean {
    const rival = this.#rival
    if (rival === null) return false
    this.#rival = null
    this.#spare = attempt
    if (attempt === this.current) this.current = rival
    return true
  }

  /** The answer of this one counts: the other one, if there is one, is ended with its connection. */
  win(attempt: Attempt): void {
    const rival = this.#rival
    if (rival === null) return
    const loser = attempt === rival ? this.current : rival
    if (attempt === rival) this.#owner.target.upstream.cells.hedged.won++
    this.leave(loser)
    // That it was slower says nothing of its endpoint that a breaker should hear.
    end(loser, 'abandoned')
  }

  /** Ends whatever is under way. Idempotent. */
  end(outcome: Outcome): void {
    const rival = this.#rival
    if (rival !== null) {
      this.leave(rival)
      end(rival, 'abandoned')
    }
    this.current.end(outcome)
  }

  /** They will not be used again. */
  release(): void {
    this.current.release()
    this.#spare?.release()
  }
}

function end(attempt: Attempt, outcome: Outcome): void {
  attempt.end(outcome)
  attempt.response.abandon(null)
}
