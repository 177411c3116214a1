/** Whether a request is sent again and when: what one exchange has used up of its retry policy. */
import { backoffMs, retryAfterBackoffMs } from '../../policy/backoff.ts'
import type { RetryBudget } from '../../policy/retry-budget.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import type { OutgoingRequest } from './outgoing.ts'
import type { RetryPlan } from './snapshot.ts'

/** What stands in the way of another attempt. */
export type Obstacle = 'none' | 'final' | 'body' | 'budget' | 'deadline'

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
    const waitMs =
      retryAfterMs === null ? backoffMs(this.#count + 1, plan.config.backoff) : retryAfterBackoffMs(retryAfterMs)
    if (time + waitMs >= deadlineAt) return 'deadline'
    if (!budget.tryRetry(time)) return 'budget'
    this.waitMs = waitMs
    this.#count++
    return 'none'
  }
}
