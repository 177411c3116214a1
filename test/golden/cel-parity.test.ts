import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { checkSpec } from '../../operator/api/check.ts'
import { schema } from '../../operator/api/crd.ts'
import type { Structural } from '../../operator/api/structural.ts'
import { brokenRules, defaulted } from '../helpers/cel.ts'
import { invalidCases, validCases } from '../helpers/crd-cases.ts'

const SPEC = schema().properties!.spec!

// The two keys of retry.on are told as one, so the same words may come twice.
const byCel = (spec: unknown) => [...new Set(brokenRules(SPEC, defaulted(SPEC, spec), ['spec']))].sort()
const byPredicate = (spec: unknown) => {
  const checked = checkSpec(spec)
  return checked.ok ? [] : checked.issues.map(({ field, message }) => `${field}: ${message}`).sort()
}
const specOf = (object: unknown) => (object as { spec: unknown }).spec

describe('a rule in CEL and its predicate', () => {
  for (const { name, object } of validCases()) {
    it(`agree that ${name} is valid`, () => assert.deepEqual(byCel(specOf(object)), []))
  }

  // What the schema itself refuses is never shown to CEL.
  for (const { name, object, says, offline } of invalidCases().filter((each) => each.says.length > 0)) {
    it(`agree about ${name}, word by word`, () => {
      assert.deepEqual(offline, [])
      assert.deepEqual(byCel(specOf(object)), [...says].sort())
    })
  }

  it('agree about any value that fits the schema', () => {
    let broken = 0
    fc.assert(
      fc.property(anySpec, (spec) => {
        const expected = byPredicate(spec)
        broken += expected.length
        assert.deepEqual(byCel(spec), expected)
      }),
      { numRuns: 2000 },
    )
    assert.ok(broken > 1000, `only ${broken} rules were broken, the values are too tame`)
  })

  it('are each broken by at least one golden case', () => {
    const said = invalidCases().flatMap(({ says }) => says)
    const silent = allRules(SPEC, 'spec').filter(
      ({ message, pattern }) => !said.some((line) => line.includes(message) || pattern.test(line)),
    )
    assert.deepEqual(
      silent.map(({ path, message }) => `${path}: ${message}`),
      [],
    )
  })
})

function allRules(node: Structural, path: string): { path: string; message: string; pattern: RegExp }[] {
  const own = (node['x-kubernetes-validations'] ?? []).map(({ message }) => {
    // A message with a value begins with it: `'10' is not a duration` for `not a duration`.
    const start = message
      .split(':')[0]!
      .replace(/^not /, '')
      .replace(/^[a-zA-Z]+ is shorter/, 'is shorter')
    return {
      path,
      message,
      pattern: new RegExp(start.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/^this header/, '')),
    }
  })
  const below = Object.entries(node.properties ?? {}).flatMap(([name, child]) => allRules(child, `${path}.${name}`))
  return [...own, ...below, ...(node.items ? allRules(node.items, `${path}[]`) : [])]
}

const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 })
const record = <T extends Record<string, fc.Arbitrary<unknown>>>(fields: T) =>
  fc.record(fields).map((value) => Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)))

const pick = (...values: string[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...values) }, { weight: 1, arbitrary: fc.string({ maxLength: 12 }) })
const anyDuration = pick(
  '5s',
  '10s',
  '1m',
  '1h30m',
  '1.5s',
  '.5s',
  '0s',
  '10',
  '-1s',
  '168h',
  '169h',
  '1d',
  '100us',
  '00000000005s',
  '1ms1ms',
)
const anyPercent = pick('50%', '0%', '100%', '100.1%', '0.00%', '20', '5 %')
const anyHost = pick(
  'a',
  'api.example.com',
  '10.0.0.1',
  '::1',
  '[::1]',
  'a:80',
  'http://a',
  '127.0.0.1',
  '1.2.3',
  'a_b',
  '-a',
  'localhost',
  'fe80::1%1',
  '::ffff:1.2.3.4',
  '01.2.3.4',
)
const anyName = pick('a', 'a-b', 'A', 'a.b', '-a', 'a-', '')
const anyKey = pick('token', 'tls.crt', '..', '.', '..data', '_x', 'a/b')
const anyPort = fc.constantFrom(80, 443, 8081, 14990, 14991, 65535)
const keyRef = record({ name: anyName, key: anyKey })

const anyUpstream = record({
  endpoints: maybe(
    fc.uniqueArray(record({ host: anyHost, port: anyPort }), {
      minLength: 1,
      maxLength: 3,
      selector: (each) => JSON.stringify([each.host, each.port]),
    }),
  ),
  dns: maybe(record({ hostname: anyHost, port: anyPort })),
  service: maybe(
    record({
      name: anyName,
      namespace: maybe(anyName),
      port: fc.constantFrom<unknown>(80, 0, 65536, 'http', '80', 'Http', '-a', 'a'),
    }),
  ),
  tls: maybe(
    record({
      serverName: maybe(anyHost),
      ca: maybe(record({ secretKeyRef: maybe(keyRef), configMapKeyRef: maybe(keyRef) })),
      clientCertificate: maybe(record({ secretName: anyName })),
    }),
  ),
  auth: maybe(
    record({
      bearer: maybe(record({ secretKeyRef: keyRef })),
      basic: maybe(record({ secretName: anyName })),
      oauth2ClientCredentials: maybe(
        record({
          tokenUrl: pick(
            'https://login.example.com/token',
            'http://10.0.0.1:8080/t?x',
            'https://a:70000/',
            'ftp://a',
            'https://1.2.3/',
          ),
          clientId: fc.constant('shop'),
          clientSecret: record({ secretKeyRef: keyRef }),
          scopes: maybe(fc.uniqueArray(pick('read', 'a b', 'a"b', 'x/y:z'), { maxLength: 2 })),
          tls: maybe(record({ ca: maybe(record({ secretKeyRef: maybe(keyRef) })) })),
        }),
      ),
      header: maybe(record({ name: pick('X-Key', 'host', 'TE', 'X Key', 'Upgrade', 'x:'), secretKeyRef: keyRef })),
    }),
  ),
  circuitBreaker: maybe(
    record({
      openDuration: maybe(anyDuration),
      maxOpenDuration: maybe(anyDuration),
      failureRate: maybe(record({ ratio: anyPercent, window: maybe(anyDuration) })),
    }),
  ),
  limits: maybe(record({ maxConcurrentRetries: maybe(fc.constant(1)) })),
})

const conditions = fc.uniqueArray(pick('Reset', 'Timeout', '5xx', '503', '4xx', '200', '600'), {
  minLength: 1,
  maxLength: 3,
})

const anySpec = record({
  protocol: fc.constantFrom('HTTP', 'TCP'),
  listen: record({
    port: anyPort,
    hostnames: maybe(
      fc.uniqueArray(pick('redis', 'localhost', 'a.localhost', 'Redis', '10.0.0.1', 'db.example.com'), {
        maxLength: 3,
      }),
    ),
  }),
  upstreams: fc
    .uniqueArray(fc.tuple(anyName, anyUpstream), { minLength: 1, maxLength: 2, selector: ([name]) => name })
    .map((each) => each.map(([name, upstream]) => ({ name, ...upstream }))),
  retry: maybe(
    record({
      on: maybe(conditions),
      true: maybe(conditions),
      perTryTimeout: maybe(anyDuration),
      backoff: maybe(record({ initial: maybe(anyDuration), max: maybe(anyDuration) })),
      budget: maybe(record({ ratio: maybe(anyPercent) })),
      maxBufferedBody: maybe(pick('64Ki', '0', '16Mi', '16385Ki', '1e3', '1.5Ki', '-1', '64m', '17Mi')),
    }),
  ),
  timeouts: maybe(record({ connect: maybe(anyDuration), request: maybe(anyDuration), idle: maybe(anyDuration) })),
  rateLimit: maybe(
    record({
      requests: fc.constant(1),
      per: anyDuration,
      onLimit: maybe(fc.constantFrom('Reject', 'Delay')),
      maxDelay: maybe(anyDuration),
    }),
  ),
  accessLog: maybe(
    record({ mode: maybe(fc.constantFrom<unknown>('All', 'Errors', 'Off', false)), sample: maybe(anyPercent) }),
  ),
  tracing: maybe(
    record({
      otlpEndpoint: pick('http://collector:4318', 'https://a.example/b', 'http://a/?b', 'grpc://a', 'http://u@a', ''),
      sample: maybe(anyPercent),
      slowerThan: maybe(anyDuration),
    }),
  ),
})
