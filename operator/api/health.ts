/** Which endpoints of an upstream get nothing for a while: open circuits, failed checks, ejection. */
import { z } from 'zod'
import { isShorter } from '../../common/duration.ts'
import {
  atMostOne,
  doc,
  duration,
  integer,
  listSet,
  notDurations,
  optional,
  percent,
  port,
  rule,
} from '../../common/schema-kit.ts'

const failureRate = z.object({
  ratio: doc(percent({ positive: true }), 'Share of failures at which the circuit opens.'),
  minimumRequests: doc(integer(1, 100_000), 'With fewer attempts than this in the window nothing is decided.').default(
    20,
  ),
  window: doc(duration(), 'How far back attempts are counted.').default('10s'),
})

const slowCall = z.object({
  duration: doc(
    duration(),
    'An attempt is slow when its answer begins this long after the end of the request, or later; a probe that is slow has failed.',
  ),
  ratio: doc(percent({ positive: true }), 'Share of slow attempts at which the circuit opens.'),
  minimumRequests: doc(integer(1, 100_000), 'With fewer attempts than this in the window nothing is decided.').default(
    20,
  ),
  window: doc(duration(), 'How far back attempts are counted.').default('10s'),
})

export const circuitBreaker = rule(
  z.object({
    consecutiveFailures: optional(
      integer(1, 1000),
      'The circuit of an endpoint opens after this many failed attempts in a row. A failure is a connection that cannot be made or breaks, a time-out, or an answer of 500 and above other than 501 and 505.',
      '5 without failureRate, else not counted',
    ),
    failureRate: optional(
      failureRate,
      'The circuit of an endpoint opens when this share of the latest attempts failed. Together with consecutiveFailures, whichever comes first.',
      'not counted',
    ),
    slowCall: optional(
      slowCall,
      'The circuit of an endpoint opens when this share of the latest attempts was slow, whether they failed or not. HTTP only.',
      'not counted',
    ),
    openDuration: doc(
      duration(),
      'How long an open circuit refuses before it lets a probe through. Doubles, up to maxOpenDuration, each time the probe fails.',
    ).default('30s'),
    maxOpenDuration: optional(
      duration(),
      'Longest time that the circuit stays open between two probes.',
      '5m, or openDuration when that is longer',
    ),
    halfOpenRequests: doc(
      integer(1, 100),
      'Probes that are let through at a time after openDuration, and that must all succeed to close the circuit.',
    ).default(1),
  }),
  {
    cel: `!has(self.maxOpenDuration) || ${notDurations('self.openDuration', 'self.maxOpenDuration')} || duration(self.maxOpenDuration) >= duration(self.openDuration)`,
    holds: (value) => !isShorter(value.maxOpenDuration, value.openDuration),
    field: ['maxOpenDuration'],
    message: 'maxOpenDuration is shorter than openDuration: make it at least as long',
    says: {
      cel: `"'" + self.maxOpenDuration + "' is shorter than openDuration '" + self.openDuration + "': make it at least as long"`,
      text: (value) =>
        `'${value.maxOpenDuration}' is shorter than openDuration '${value.openDuration}': make it at least as long`,
    },
  },
)

const PATH_PATTERN = '^/[!-~]*$'
const checkPort = optional(port(), 'Port that is checked.', 'that of the endpoint')
const httpCheck = z.object({
  port: checkPort,
  path: doc(
    rule(z.string().max(1024), {
      cel: `self.matches('${PATH_PATTERN}')`,
      holds: (text) => new RegExp(PATH_PATTERN).test(text),
      message: 'not a path: begin with a slash, without spaces, such as /healthz',
      says: {
        cel: `"'" + self + "' is not a path: begin with a slash, without spaces, such as /healthz"`,
        text: (text) => `'${text}' is not a path: begin with a slash, without spaces, such as /healthz`,
      },
    }),
    'Path that is asked for with GET over HTTP/1.1, with its query if it has one. TLS and Host are those of the upstream.',
  ),
  expectedStatuses: optional(
    listSet(integer(200, 599), 20).min(1),
    'Statuses of a healthy endpoint, as numbers.',
    '200 to 399',
  ),
})

export const healthCheck = rule(
  atMostOne(
    z.object({
      http: optional(httpCheck, 'Healthy is what answers a GET with an expected status.', 'none'),
      tcp: optional(
        z.object({ port: checkPort }),
        'Healthy is what accepts a connection; written as `tcp: {}`.',
        'none',
      ),
      tls: optional(
        z.object({ port: checkPort }),
        'Healthy is what ends a TLS handshake with a certificate that is trusted; written as `tls: {}`.',
        'none',
      ),
      interval: doc(duration(), 'From the end of a check to the next one, give or take a tenth. At least 1s.').default(
        '10s',
      ),
      timeout: doc(duration(), 'A check that takes longer has failed.').default('2s'),
      unhealthyThreshold: doc(integer(1, 100), 'Failed checks in a row that make an endpoint unhealthy.').default(3),
      healthyThreshold: doc(integer(1, 100), 'Passed checks in a row that make it healthy again.').default(2),
    }),
    ['http', 'tcp', 'tls'],
    'healthCheck',
  ),
  {
    cel: `${notDurations('self.interval')} || duration(self.interval) >= duration('1s')`,
    holds: ({ interval }) => !isShorter(interval, '1s'),
    field: ['interval'],
    message: 'too often for a check: use at least 1s',
    says: {
      cel: `"'" + self.interval + "' is too often for a check: use at least 1s"`,
      text: ({ interval }) => `'${interval}' is too often for a check: use at least 1s`,
    },
  },
)

export const outlierDetection = z.object({
  consecutiveFailures: doc(
    integer(1, 1000),
    'An endpoint is ejected after this many failed attempts in a row; what a failure is, circuitBreaker says.',
  ).default(5),
  ejectionTime: doc(
    duration(),
    'How long it gets no attempts, times the number of ejections in a row, up to 5m or this when it is longer.',
  ).default('30s'),
  maxEjected: doc(
    percent(),
    'Largest share of the endpoints that is ejected at a time. One may always be ejected while another is up.',
  ).default('50%'),
})
