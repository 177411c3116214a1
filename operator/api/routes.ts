/** Which requests go where: matches, weights, stickiness, and what is different for the requests of a route. */
import { z } from 'zod'
import {
  doc,
  exactlyOne,
  integer,
  label,
  list,
  listMap,
  listSet,
  optional,
  percent,
  type RuleOptions,
  rule,
  rules,
} from '../../common/schema-kit.ts'
import { fieldName, fieldValue, writtenFieldName } from './fields.ts'
import { pattern } from './pattern.ts'
import { rateLimit, routeRetry, routeTimeouts } from './policies.ts'

const PATH_PATTERN = '^/[!-"$->@-~]*$'

function path() {
  return rule(z.string().max(1024), {
    cel: `self.matches('${PATH_PATTERN}')`,
    holds: (text) => new RegExp(PATH_PATTERN).test(text),
    message: 'not a path: begin it with / and use visible ASCII without ? and #',
  })
}

const pathMatch = exactlyOne(
  z.object({
    exact: optional(path(), 'The whole path.', 'none'),
    prefix: optional(
      path(),
      'Its begin, up to a slash or the end: `/v1` matches `/v1` and `/v1/charges`, not `/v10`.',
      'none',
    ),
    regex: optional(
      pattern(),
      'A regular expression that must match the whole path. The part of RE2 that is also JavaScript: no flags, named groups or POSIX classes.',
      'none',
    ),
  }),
  ['exact', 'prefix', 'regex'],
  'path',
)

function valueMatch<T extends z.ZodType>(name: T, what: string) {
  return exactlyOne(
    z.object({
      name: doc(name, `Name of the ${what}.`),
      in: optional(
        listSet(z.string().max(256), 64).min(1),
        'The value is one of these, compared letter by letter. YAML takes NO, ON, Y and the like for booleans: put them in quotes.',
        'none',
      ),
      prefix: optional(z.string().min(1).max(256), 'The value begins with this.', 'none'),
      regex: optional(
        pattern(),
        'A regular expression that must match the whole value. The part of RE2 that is also JavaScript: no flags, named groups or POSIX classes.',
        'none',
      ),
      present: optional(z.boolean(), `true: there is such a ${what}; false: there is none.`, 'none'),
    }),
    ['in', 'prefix', 'regex', 'present'],
    `a match of a ${what}`,
  )
}

const METHOD_PATTERN = '^[A-Z][-_A-Z0-9]*$'
const METHOD_REMEDY = 'use upper-case letters, such as GET'

const method = rule(z.string().max(32), {
  cel: `self.matches('${METHOD_PATTERN}')`,
  holds: (text) => new RegExp(METHOD_PATTERN).test(text),
  message: `not a method: ${METHOD_REMEDY}`,
  says: {
    cel: `"'" + self + "' is not a method: ${METHOD_REMEDY}"`,
    text: (text) => `'${text}' is not a method: ${METHOD_REMEDY}`,
  },
})

const match = z.object({
  methods: optional(listSet(method, 16).min(1), 'The method is one of these.', 'any'),
  path: optional(
    pathMatch,
    'The path as the application sends it, without the query; nothing is decoded or normalized. Exactly one of its fields must be given.',
    'any',
  ),
  headers: optional(
    listMap(valueMatch(fieldName(), 'header'), ['name'], 16),
    'Header fields, all of which must match. A field that is there several times has its values joined with a comma and a space. Exactly one of in, prefix, regex and present must be given.',
    'any',
  ),
  query: optional(
    listMap(valueMatch(z.string().min(1).max(128), 'query parameter'), ['name'], 16),
    'Query parameters, all of which must match, decoded; of several with one name the first counts. Exactly one of in, prefix, regex and present must be given.',
    'any',
  ),
  cookies: optional(
    listMap(valueMatch(fieldName(), 'cookie'), ['name'], 16),
    'Cookies, all of which must match; of several with one name the first counts. Exactly one of in, prefix, regex and present must be given.',
    'any',
  ),
})

const to = rule(
  listMap(
    z.object({
      upstream: doc(label(), 'Name of an upstream.'),
      weight: doc(integer(0, 1_000_000), 'Share of the requests relative to the other upstreams of the route.').default(
        1,
      ),
    }),
    ['upstream'],
    16,
  ).min(1),
  {
    cel: 'self.size() == 0 || self.exists(t, t.weight > 0)',
    holds: (targets) => targets.length === 0 || targets.some(({ weight }) => weight > 0),
    message: 'the weights sum to 0, so no upstream gets the requests: give one of them a weight above 0',
  },
)

const stickyOn = exactlyOne(
  z.object({
    header: optional(fieldName(), 'Name of a header field, such as X-User-Id.', 'none'),
    cookie: optional(fieldName(), 'Name of a cookie.', 'none'),
  }),
  ['header', 'cookie'],
  'stickyOn',
)

function headerChanges(whose: string, others?: string) {
  const name = () => writtenFieldName('a route cannot change it', others)
  const change = () =>
    z.object({
      name: doc(name(), 'Name of the header field.'),
      value: doc(fieldValue(), 'Its value, one line.'),
    })
  return z.object({
    set: optional(
      listMap(change(), ['name'], 16),
      `Fields that the ${whose} has with this value alone, whatever it came with.`,
      'none',
    ),
    add: optional(list(change(), 16), `Fields that are added to those that the ${whose} has.`, 'none'),
    remove: optional(listSet(name(), 16), `Fields that are taken out of the ${whose}.`, 'none'),
  })
}

const mirror = z.object({
  upstream: doc(
    label(),
    'Name of the upstream that gets the copies, which are as the other upstream got them, with its own credential.',
  ),
  percent: doc(percent(), 'Share of the requests that are copied.').default('100%'),
})

export const route = rules(
  z.object({
    match: doc(
      match,
      'Which requests take this route: all of its fields must match. `{}` matches every request.',
    ).prefault({}),
    to: doc(to, 'Where they go. With several upstreams each gets its share by weight.'),
    stickyOn: optional(
      stickyOn,
      'The value that chooses between several upstreams, so that one user always gets the same one while the weights stay as they are. Requests without it are shared out by chance. Exactly one of its fields must be given.',
      'chance',
    ),
    rewrite: optional(
      z.object({ prefix: doc(path(), 'What the matched prefix is replaced by, such as `/`.') }),
      'Changes the path that the upstream sees. Needs match.path.prefix.',
      'the path stays as it is',
    ),
    requestHeaders: optional(
      headerChanges('request', 'x-request-id'),
      'Changes header fields on the way to the upstream. A credential of the upstream is stronger.',
      'none',
    ),
    responseHeaders: optional(
      headerChanges('answer'),
      'Changes header fields of the upstream’s final answer on the way to the application; answers that the sidecar makes itself stay as they are.',
      'none',
    ),
    timeouts: optional(routeTimeouts, 'Other time-outs for these requests.', 'those of the Ambassador'),
    retry: optional(
      routeRetry,
      'The whole retry policy for these requests, instead of the one of the Ambassador; the retry budget is shared by all requests to an upstream.',
      'the one of the Ambassador',
    ),
    rateLimit: optional(
      rateLimit,
      'A limit of these requests alone, which then do not count against the one of the Ambassador.',
      'the one of the Ambassador',
    ),
    mirror: optional(
      mirror,
      'Sends copies of these requests to another upstream too, after the answer, and throws its answers away. The application never waits for them; they are left out when anything is scarce.',
      'none',
    ),
  }),
  {
    cel: '!has(self.rewrite) || (has(self.match.path) && has(self.match.path.prefix))',
    holds: (each) => each.rewrite === undefined || each.match.path?.prefix !== undefined,
    field: ['rewrite'],
    message: 'rewrite replaces a matched prefix: add match.path.prefix',
  },
)

/** The list of routes. */
export const routes = list(route, 32)

interface Routed {
  readonly protocol: string
  readonly upstreams: readonly { readonly name: string; readonly fromHeader?: unknown }[]
  readonly routes?: readonly z.output<typeof route>[] | undefined
}

const UNKNOWN_TO = '!self.upstreams.exists(u, u.name == t.upstream)'

/** Rules about routes that need the rest of the spec. */
export const routeRules: readonly RuleOptions<Routed>[] = [
  {
    cel: "self.protocol == 'HTTP' || !has(self.routes)",
    holds: (spec) => spec.protocol === 'HTTP' || spec.routes === undefined,
    field: ['routes'],
    message: 'routes needs protocol HTTP: remove it or change the protocol',
  },
  {
    cel: `!has(self.routes) || !self.routes.exists(r, r.to.exists(t, ${UNKNOWN_TO}))`,
    holds: (spec) => !hasUnknownUpstream(spec),
    field: ['routes'],
    // Naming it costs the API server more than a message may cost.
    message: 'a route goes to an upstream that does not exist: use one of the names in upstreams, or add it there',
  },
  {
    cel: `!has(self.routes) || !self.routes.exists(r, has(r.mirror) && !self.upstreams.exists(u, u.name == r.mirror.upstream && !has(u.fromHeader)))`,
    holds: (spec) => !hasUnknownMirror(spec),
    field: ['routes'],
    message:
      'a mirror goes to an upstream that does not exist, or to one with fromHeader: use one of the other names in upstreams',
  },
]

function hasUnknownMirror({ routes: given = [], upstreams }: Routed): boolean {
  const isKnown = (name: string) => upstreams.some((each) => each?.name === name && each.fromHeader === undefined)
  return given.some(({ mirror: one }) => one !== undefined && !isKnown(one.upstream))
}

function hasUnknownUpstream({ routes: given = [], upstreams }: Routed): boolean {
  const isKnown = (name: string) => upstreams.some((each) => each?.name === name)
  return given.some(({ to: targets }) => targets.some(({ upstream }) => !isKnown(upstream)))
}
