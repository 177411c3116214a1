/** Passive ejection: an endpoint that keeps failing gets no attempts for a while, but never more of them than allowed. */
import type { OutlierConfig } from '../../common/proxy-config.ts'
import type { Millis } from './policy.ts'

/** What is kept of one endpoint. */
export class Outlier {
  /** Failed attempts in a row. */
  failures = 0
  /** 0: not ejected. */
  ejectedUntil: Millis = 0
  /** How often in a row it was ejected, which is how many times the base time the next ejection lasts. */
  ejections = 0

  isEjected(now: Millis): boolean {
    return now < this.ejectedUntil
  }

  reset(): void {
    this.failures = 0
    this.ejectedUntil = 0
    this.ejections = 0
  }
}

/**
 * Hears how an attempt ended, and says whether it ejects the endpoint.
 * @param others of the other endpoints: how many there are, are ejected and are up (neither ejected nor otherwise unusable). It is
 *   called only when it matters.
 */
export function hearOutcome(
  outlier: Outlier,
  isFailure: boolean,
  config: OutlierConfig,
  now: Millis,
  others: () => { readonly count: number; readonly ejected: number; readonly up: number },
): boolean {
  if (!isFailure) {
    outlier.failures = 0
    // It has been well for as long as the longest ejection.
    if (outlier.ejections > 0 && now - outlier.ejectedUntil >= config.maxEjectionMs) outlier.ejections = 0
    return false
  }
  outlier.failures++
  if (outlier.failures < config.consecutiveFailures || outlier.isEjected(now)) return false
  const { count, ejected, up } = others()
  // A share of few endpoints is less than one: then no endpoint would ever be ejected. And 58% of 50 is 29, though not in binary.
  const most = Math.max(1, Math.floor((count + 1) * config.maxEjected + 1e-9))
  if (up === 0 || ejected >= most) return false
  outlier.failures = 0
  outlier.ejections++
  outlier.ejectedUntil = now + Math.min(config.maxEjectionMs, config.ejectionMs * outlier.ejections)
  return true
}
