/** How an endpoint of an upstream is chosen for each attempt. */
import { z } from 'zod'
import { BALANCING_POLICIES, ZONE_PREFERENCES } from '../../common/proxy-config.ts'
import { doc, duration, exactlyOne, optional, percent, rules } from '../../common/schema-kit.ts'
import { fieldName } from './fields.ts'

const consistentHash = exactlyOne(
  z.object({
    header: optional(fieldName(), 'Name of a header field, such as X-User-Id.', 'none'),
    cookie: optional(fieldName(), 'Name of a cookie.', 'none'),
    query: optional(z.string().min(1).max(128), 'Name of a query parameter.', 'none'),
  }),
  ['header', 'cookie', 'query'],
  'consistentHash',
)

export const loadBalancing = rules(
  z.object({
    policy: doc(
      z.enum(BALANCING_POLICIES),
      'How an endpoint is chosen among the available ones of one priority, by their weights: LeastRequest takes the less busy of two that chance names, RoundRobin takes them in turn, Random by chance alone, ConsistentHash (HTTP only) by a value of the request, in every pod alike.',
    ).default('LeastRequest'),
    consistentHash: optional(
      consistentHash,
      'The value that requests of one endpoint have in common; those without it go where LeastRequest sends them. An endpoint with a quarter more than its share of the requests under way, and ten at least, passes further ones on to the next. Exactly one of its fields must be given.',
      'none',
    ),
    slowStart: optional(
      duration(),
      'How long it takes until an endpoint that is new, or well again, gets its full share; it begins with a tenth.',
      'it gets it at once',
    ),
    panicThreshold: optional(
      percent(),
      'With a smaller share of healthy endpoints than this, all are used whatever their health, so that the rest is not overrun. `0%`: an unhealthy one never gets anything, and without a healthy one the answer is no_healthy_endpoint. Endpoints of another upstream are never used.',
      'all are used when none is healthy',
    ),
    zonePreference: optional(
      z.enum(ZONE_PREFERENCES),
      'SameZone: among endpoints of one priority, those of the zone of the pod go first, as if the others had the next priority: they get what 1.4 times the share of healthy hosts of this zone does not cover. Zones come with `service`, and with `zone` in `endpoints` and `file`. Where the zone of the pod is not known, it does nothing.',
      'None',
    ),
  }),
  {
    // The API server checks the default `{}` before it fills in the policy.
    cel: "!has(self.policy) || self.policy != 'ConsistentHash' || has(self.consistentHash)",
    holds: (value) => value.policy !== 'ConsistentHash' || value.consistentHash !== undefined,
    field: ['policy'],
    message: 'ConsistentHash needs a value to hash: add consistentHash with a header, a cookie or a query',
  },
  {
    cel: "!has(self.consistentHash) || (has(self.policy) && self.policy == 'ConsistentHash')",
    holds: (value) => value.consistentHash === undefined || value.policy === 'ConsistentHash',
    field: ['consistentHash'],
    message: 'consistentHash does nothing with another policy: set policy ConsistentHash or remove it',
  },
  {
    cel: "!has(self.zonePreference) || self.zonePreference == 'None' || !has(self.policy) || self.policy != 'ConsistentHash'",
    holds: (value) =>
      value.zonePreference === undefined || value.zonePreference === 'None' || value.policy !== 'ConsistentHash',
    field: ['zonePreference'],
    message:
      'ConsistentHash sends a value to the same endpoint from every zone: remove zonePreference or choose another policy',
  },
)
