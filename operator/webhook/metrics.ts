/** Metrics of the webhook. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Certs } from './certs.ts'

/** From half a millisecond, what a review takes, to 5 seconds, when API servers give up. In seconds. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** A request that was no review: why. */
export type Malformed = 'NotJson' | 'NotAReview' | 'TooLarge' | 'Overloaded' | 'Timeout' | 'Disconnected'

export class WebhookMetrics {
  readonly #reviews: Counter<'result' | 'reason' | 'dry_run'>
  readonly #duration: Histogram<'webhook'>

  constructor(registry: Registry) {
    this.#reviews = new Counter({
      name: 'ambassador_webhook_reviews_total',
      help: 'Admission reviews by result (injected, removed, copied, unchanged, skipped, denied, error, malformed) and reason.',
      labelNames: ['result', 'reason', 'dry_run'],
      registers: [registry],
    })
    this.#duration = new Histogram({
      name: 'ambassador_webhook_duration_seconds',
      help: 'Time from the head of a request to the end of its answer.',
      labelNames: ['webhook'],
      buckets: BUCKETS,
      registers: [registry],
    })
  }

  review(result: string, reason: string, isDryRun: boolean): void {
    this.#reviews.inc({ result, reason, dry_run: String(isDryRun) })
  }

  malformed(reason: Malformed): void {
    this.review('malformed', reason, false)
  }

  took(webhook: string, seconds: number): void {
    this.#duration.observe({ webhook }, seconds)
  }
}

/** The seconds that are left to each certificate, counted when somebody asks. */
export function registerExpiry(registry: Registry, certs: Certs): void {
  new Gauge({
    name: 'ambassador_webhook_certificate_expiry_seconds',
    help: 'Seconds until the serving certificate (leaf) and the CA that signed it (authority) expire.',
    labelNames: ['certificate'],
    registers: [registry],
    collect() {
      const expiry = certs.expirySeconds()
      if (expiry === undefined) return
      this.set({ certificate: 'leaf' }, expiry.leaf)
      this.set({ certificate: 'authority' }, expiry.authority)
    },
  })
}
