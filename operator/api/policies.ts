/** What an Ambassador does with the traffic whatever upstream it goes to: retry, timeouts, rate limit, access log. */
import { z } from 'zod'
import { isShorter } from '../../common/duration.ts'
import {
  doc,
  duration,
  enumWithOff,
  integer,
  listSet,
  notDurations,
  optional,
  percent,
  quantity,
  rule,
} from '../../common/schema-kit.ts'
import { URL_PATTERN } from './url.ts'

const RETRY_ON_PATTERN = '^(ConnectFailure|Reset|Timeout|5xx|[45][0-9][0-9])$'
const RETRY_ON_REMEDY = 'use ConnectFailure, Reset, Timeout, 5xx or a status from 400 to 599 in quotes'

const retryOn = rule(z.string().max(16), {
  cel: `self.matches('${RETRY_ON_PATTERN}')`,
  holds: (text) => new RegExp(RETRY_ON_PATTERN).test(text),
  message: `not a retry condition: ${RETRY_ON_REMEDY}`,
  says: {
    cel: `"'" + self + "' is not a retry condition: ${RETRY_ON_REMEDY}"`,
    text: (text) => `'${text}' is not a retry condition: ${RETRY_ON_REMEDY}`,
  },
})

const backoff = rule(
  z.object({
    initial: optional(duration(), 'Longest wait before the first retry.', '25ms, or max when that is shorter'),
    max: optional(duration(), 'Longest wait before any retry.', '1s, or initial when that is longer'),
  }),
  {
    cel: `!has(self.initial) || !has(self.max) || ${notDurations('self.initial', 'self.max')} || duration(self.max) >= duration(self.initial)`,
    holds: ({ initial, max }) => !isShorter(max, initial),
    field: ['max'],
    message: 'max is shorter than initial: make it at least as long',
    says: {
      cel: `"'" + self.max + "' is shorter than initial '" + self.initial + "': make it at least as long"`,
      text: ({ initial, max }) => `'${max}' is shorter than initial '${initial}': make it at least as long`,
    },
  },
)

const budget = z.object({
  ratio: doc(percent(), 'Retries that each request earns: with 20%, five requests pay for one retry.').default('20%'),
  minPerSecond: doc(
    integer(0, 10_000),
    'Retries a second beside the ratio, saved up for ten seconds: for an upstream with few requests, or whose retries succeed.',
  ).default(10),
})

/** What is tried again when a policy does not say. */
const RETRY_ON = ['ConnectFailure', 'Reset']

const retryFields = z.object({
  maxRetries: doc(integer(0, 10), 'Tries on top of the first one; 0 turns retries off.').default(2),
  on: optional(
    listSet(retryOn, 32).min(1),
    'What is tried again: ConnectFailure (no connection was made), Reset (it broke before the answer began), Timeout (perTryTimeout passed), 5xx (500 to 599 without 501 and 505), or a single status such as "429".',
    `[${RETRY_ON.join(', ')}]`,
  ),
  // YAML 1.1, which kubectl, Helm and the API server read, takes an unquoted key `on` for the boolean true.
  true: optional(
    listSet(retryOn, 32).min(1),
    'The same as `on`: what kubectl and Helm make of that key when it has no quotes. Never written on purpose.',
    'none',
  ),
  perTryTimeout: optional(
    duration(),
    'Time until the answer to one try begins. Without it a try may use all of timeouts.request and a Timeout is never tried again.',
    'none',
  ),
  backoff: doc(
    backoff,
    'Wait between tries: a random time up to a bound that starts at initial and doubles to max. A Retry-After of the upstream is waited for instead, within timeouts.request.',
  ).prefault({}),
  budget: doc(
    budget,
    'Bounds retries to a share of the traffic, so that an upstream in trouble is not buried under them.',
  ).prefault({}),
  maxBufferedBody: doc(
    quantity('16Mi'),
    'A request body up to this size is kept for a retry; a larger one is streamed and not tried again once any of it was sent.',
  ).default('64Ki'),
  hedge: optional(
    z.object({
      after: doc(
        duration(),
        'Time without the begin of an answer after which the request is sent a second time: about what all but the slowest twentieth of the answers take.',
      ),
    }),
    'Sends a slow request a second time, to another endpoint if there is one, and takes the answer that begins first; the other try is ended with its connection. Once for each request that may be repeated (methods, maxBufferedBody), within the budget, never when a connection would have to be waited for.',
    'off',
  ),
  methods: doc(
    z.enum(['Idempotent', 'All']),
    'Idempotent tries again GET, HEAD, OPTIONS, PUT and DELETE, and other methods only when nothing of the request was sent. All is for an API that takes idempotency keys.',
  ).default('Idempotent'),
})

const oneOn = {
  cel: '!has(self.on) || !has(self.__true__)',
  holds: (value: { readonly on?: unknown; readonly true?: unknown }) =>
    value.on === undefined || value.true === undefined,
  field: ['on'],
  message: 'on is given twice, once as "true", which is what YAML makes of on without quotes: remove one of them',
}

export const retry = rule(retryFields, oneOn)

/** Of one route. The budget belongs to the upstream, which every route to it shares. */
export const routeRetry = rule(retryFields.omit({ budget: true }), oneOn)

/** The conditions of a retry policy, under whichever key they arrived. */
export function retryConditions(policy: z.output<typeof routeRetry>): readonly string[] {
  return policy.on ?? policy.true ?? RETRY_ON
}

export const timeouts = z.object({
  connect: doc(duration(), 'Time to make a connection, with the TLS handshake.').default('5s'),
  request: optional(
    duration({ zero: true }),
    'Time from the end of the request until the answer begins, over all tries and the waits between them; the body of the answer may take longer. `0s`: no limit. HTTP only.',
    '15s',
  ),
  idle: optional(
    duration({ zero: true }),
    'A body or a TCP connection in which no byte moves for this long is ended. `0s`: never.',
    '60s for HTTP, never for TCP',
  ),
})

/** Of one route. A connection may be shared with another route, so its time-out is the Ambassador's. */
export const routeTimeouts = z.object({
  request: optional(
    duration({ zero: true }),
    'Time from the end of the request until the answer begins. `0s`: no limit.',
    'the one of the Ambassador',
  ),
  idle: optional(
    duration({ zero: true }),
    'A body in which no byte moves for this long is ended. `0s`: never.',
    'the one of the Ambassador',
  ),
})

export const rateLimit = rule(
  z.object({
    requests: doc(
      integer(1, 1_000_000),
      'Requests (HTTP) or new connections (TCP) that are let through in each period.',
    ),
    per: doc(duration(), 'The period.'),
    burst: optional(
      integer(1, 1_000_000),
      'Requests that may come at once after a quiet time.',
      'the value of requests',
    ),
    onLimit: doc(
      z.enum(['Reject', 'Delay']),
      'What happens to one too many: Reject answers 429 with Retry-After (HTTP) or closes the connection (TCP); Delay holds it until its turn.',
    ).default('Reject'),
    maxDelay: optional(duration(), 'With Delay: what would wait longer is rejected at once.', '1s'),
    perFleet: optional(
      z.boolean(),
      'true: the limit is of all sidecars of the Ambassador together. Each takes an equal share of requests and burst; the operator tells them how many they are.',
      'false, the limit is of each sidecar',
    ),
  }),
  {
    cel: `!has(self.maxDelay) || self.onLimit == 'Delay'`,
    holds: (value) => value.maxDelay === undefined || value.onLimit === 'Delay',
    field: ['maxDelay'],
    message: 'maxDelay needs onLimit Delay: set it or remove maxDelay',
  },
)

export const accessLog = z.object({
  mode: doc(
    enumWithOff(['All', 'Errors', 'Off']),
    'All writes a line for each exchange, Errors for those that failed: no answer, one that the sidecar made itself, or one of 500 and above.',
  ).prefault('Errors'),
  sample: optional(percent(), 'With Errors: share of the exchanges that did not fail that get a line too.', '0%'),
})

const COLLECTOR_REMEDY = 'use http://host:port or https://host:port, with a path if it has one'

const collector = rule(z.string().max(1024), {
  cel: `self.matches('${URL_PATTERN}') && !self.contains('?')`,
  holds: (text) => new RegExp(URL_PATTERN).test(text) && !text.includes('?') && URL.canParse(text),
  message: `not the URL of a collector: ${COLLECTOR_REMEDY}`,
  says: {
    // What stands before an @ may be a password.
    cel: `(self.contains('@') ? 'a URL with a user' : "'" + self + "'") + ' is not the URL of a collector: ${COLLECTOR_REMEDY}'`,
    text: (text) =>
      `${text.includes('@') ? 'a URL with a user' : `'${text}'`} is not the URL of a collector: ${COLLECTOR_REMEDY}`,
  },
})

export const tracing = z.object({
  otlpEndpoint: doc(
    collector,
    'Collector that takes spans by OTLP over HTTP with JSON, such as http://collector:4318. They are sent to v1/traces below it.',
  ),
  sample: doc(
    percent(),
    'Share of the requests without a traceparent whose span is sent. A request with one is sent when the application sampled it, so that a trace is whole or not there.',
  ).default('1%'),
  slowerThan: doc(
    duration(),
    'A request whose answer began later than this is sent whatever the sample says, and so is each that failed: no answer, one that the sidecar made itself, or one of 500 and above.',
  ).default('1s'),
})
