/** Requests that keep to what an upstream says it takes. */
import { z } from 'zod'
import { doc, duration } from '../../common/schema-kit.ts'

export const pacing = z.object({
  maxDelay: doc(
    duration({ zero: true }),
    'A request waits for its turn up to this long; one that would wait longer is answered with 429, Retry-After and the reason rate_limited, without asking the upstream. `0s`: none waits.',
  ).default('1s'),
})
