/** Whether a request is sent again and when: what one exchange has used up of its retry policy. */
import { backoffMs, MAX_RETRY_AFTER_MS, readRetryAfter, retryAfterBackoffMs } from '../../policy/backoff.ts'
import type { RetryBudget } from '../../policy/retry-budget.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import type { Attempt } from './attempt.ts'
import type { Condition } from './attempt-owner.ts'
import type { OutgoingRequest } from './outgoing.ts'
import type { HeadParser } from './parser.ts'
import type { HttpTarget, RetryPlan } from './snapshot.ts'
import { Field } from './tables.ts'

/** What stands in the way of another attempt. */
export type Obstacle = 'none' | 'final' | 'body' | 'budget' | 'deadline'

/** The exchange that may have another attempt. */
export interface Retried {
  readonly request: OutgoingRequest
  readonly target: HttpTarget
  readonly isIdempotent: boolean
  readonly deadlineAt: number
}

export class Retries {
  /** Endpoints of earlier attempts. */
  readonly tried: Endpoint[] = []
  /** How long to wait before the retry that take() allowed. */
  waitMs = 0
  #count = 0

  reset(): void {
    this.tried.length = 0
    this.#count = 0
  }

  /** Whether another attempt follows one that failed; then it is taken out of the budget, and begins after `waitMs`. */
  afterFailure(of: Retried, attempt: Attempt, condition: Condition, time: number): Obstacle {
    const plan = of.target.retry
    if (plan === null || condition === null) return 'final'
    const { onConnectFailure, onReset, onTimeout } = plan
    const isWanted = condition === 'ConnectFailure' ? onConnectFailure : condition === 'Reset' ? onReset : onTimeout
    if (!isWanted) return 'final'
    if (attempt.asked !== null) this.tried.push(attempt.asked)
    // What never reached the upstream may be sent again whatever its method.
    const isSafe = condition === 'ConnectFailure' || of.isIdempotent
    const { budget } = of.target.upstream.cluster
    const obstacle = this.obstacle(plan, of.request, budget, isSafe)
    return obstacle === 'none' ? this.take(plan, budget, time, of.deadlineAt, null) : obstacle
  }

  /** Whether an answer is thrown away for another attempt, as after a failure. */
  afterAnswer(of: Retried, attempt: Attempt, head: HeadParser, time: number): boolean {
    const plan = of.target.retry
    const { cluster } = of.target.upstream
    // An answer before the end of the request is the upstream's last word on it.
    if (plan === null || !of.request.isComplete) return false
    if (this.obstacle(plan, of.request, cluster.budget, of.isIdempotent) !== 'none') return false
    // An answer in the hand is better than our own 503.
    if (attempt.asked !== null) this.tried.push(attempt.asked)
    if (typeof cluster.pick(time, this.tried) === 'string') return false
    let asked: number | null = null
    if (head.has(Field.retryAfter)) asked = readRetryAfter(head.value(head.first[Field.retryAfter]!), Date.now())
    return this.take(plan, cluster.budget, time, of.deadlineAt, asked) === 'none'
  }

  /** What speaks against another attempt before anybody asks for how long it would have to wait. */
  obstacle(plan: RetryPlan, request: OutgoingRequest, budget: RetryBudget, isSafe: boolean): Obstacle {
    if (!isSafe) return 'final'
    if (this.#count >= plan.config.maxRetries) {
      budget.limitExceeded++
      return 'final'
    }
    return request.isKept ? 'none' : 'body'
  }

  /** Takes a retry out of the budget and says in `waitMs` when it begins; everything else allows it. */
  take(plan: RetryPlan, budget: RetryBudget, time: number, deadlineAt: number, retryAfterMs: number | null): Obstacle {
    let waitMs: number
    if (retryAfterMs === null) waitMs = backoffMs(this.#count + 1, plan.config.backoff)
    else if (retryAfterMs <= MAX_RETRY_AFTER_MS) waitMs = retryAfterBackoffMs(retryAfterMs)
    // Nobody waits that long: a request that has a deadline knows it, and one without takes it for a wrong date.
    else if (deadlineAt !== Number.POSITIVE_INFINITY) return 'deadline'
    else waitMs = backoffMs(this.#count + 1, plan.config.backoff)
    if (time + waitMs >= deadlineAt) return 'deadline'
    if (!budget.tryRetry(time)) return 'budget'
    this.waitMs = waitMs
    this.#count++
    return 'none'
  }
}
