import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseProxyConfig } from '../../../../common/proxy-config.ts'
import { PROXY_CONFIG_SCHEMA_PATH, proxyConfigSchemaText } from '../../../../common/proxy-config-schema.ts'
import { parseConfig } from '../../../../proxy/config/parse.ts'
import { plainConfig } from '../../../../proxy/config/plain.ts'

/** A config with something in every place that may be null. */
function full() {
  const ref = { kind: 'secret', name: 's', key: 'k' }
  const base = plainConfig({
    namespace: 'shop',
    host: 'a',
    port: 1,
    listenPort: 2,
    protocol: 'HTTP',
    breakerThreshold: 5,
    tls: { caFile: '/ca' },
  })
  const [cluster] = base.clusters
  return structuredClone({
    ...base,
    clusters: [
      {
        ...cluster,
        tls: { ...cluster?.tls, serverName: 'x', clientCertificate: { certificate: ref, privateKey: ref } },
        auth: { kind: 'basic', username: ref, password: { kind: 'env', name: 'E' } },
        circuitBreaker: {
          ...cluster?.circuitBreaker,
          failureRate: { ratio: 0.5, minimumRequests: 20, windowMs: 10_000 },
        },
      },
      {
        ...cluster,
        name: 'second',
        discovery: { kind: 'dns', hostname: 'h', port: 3 },
        auth: { kind: 'bearer', token: ref },
      },
      { ...cluster, name: 'third', auth: { kind: 'header', name: 'X', value: { kind: 'file', path: '/f' } } },
    ],
    rateLimit: { requests: 1, perMs: 1000, burst: 1, onLimit: 'Reject', maxDelayMs: 0 },
  }) as Record<string, unknown>
}

/** Every path to a value in an object, as keys. */
function paths(value: unknown, prefix: readonly string[] = []): string[][] {
  if (value === null || typeof value !== 'object') return [[...prefix]]
  const inner = Object.entries(value).flatMap(([key, each]) => paths(each, [...prefix, key]))
  return prefix.length === 0 ? inner : [[...prefix], ...inner]
}

function change(object: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const parent = path.slice(0, -1).reduce<Record<string, unknown>>((at, key) => at[key] as never, object)
  const last = path.at(-1) as string
  if (value === undefined) {
    if (Array.isArray(parent)) parent.splice(Number(last), 1)
    else delete parent[last]
  } else parent[last] = value
}

function accepts(parse: (value: unknown) => unknown, value: unknown): boolean {
  try {
    parse(value)
    return true
  } catch {
    return false
  }
}

describe('parseConfig', () => {
  it('accepts a full config and returns it as it is', () => {
    const config = full()
    assert.equal(parseConfig(config), config)
  })

  it('allows unknown keys, so that an older proxy reads a newer config', () => {
    const config = full()
    config['later'] = { a: 1 }
    parseConfig(config)
  })

  it('agrees with the schema that it is generated from, whatever is changed in a config', () => {
    const all = paths(full())
    const values = fc.oneof(
      fc.constantFrom(undefined, null, true, '', 'x', 0, 1, -1, 0.5, 1.5, 65535, 65536, 2 ** 53, [], {}, 'HTTP', 'TCP'),
      fc.constantFrom('secret', 'file', 'env', 'endpoints', 'dns', 'bearer', 'header', 'Delay', 'Off', 'x'.repeat(254)),
      fc.jsonValue(),
    )
    const text = JSON.stringify(full())
    let refused = 0
    fc.assert(
      fc.property(fc.constantFrom(...all), values, (path, value) => {
        const config = JSON.parse(text)
        change(config, path, value)
        const expected = accepts(parseProxyConfig, config)
        if (!expected) refused++
        assert.equal(accepts(parseConfig, config), expected, `${path.join('.')} = ${JSON.stringify(value)}`)
      }),
      { numRuns: 5000 },
    )
    assert.ok(refused > 1000, 'most changes break a config')
  })

  it('uses a schema that is generated and up to date (npm run generate)', () => {
    assert.equal(readFileSync(PROXY_CONFIG_SCHEMA_PATH, 'utf8'), proxyConfigSchemaText())
  })

  const messages: readonly (readonly [string, unknown, string])[] = [
    ['version', 2, 'config: version: 2 is not allowed, use 1'],
    ['protocol', 'gRPC', "config: protocol: 'gRPC' is not allowed, use HTTP or TCP or Redis or PostgreSQL"],
    ['listener.port', 70000, 'config: listener.port: 70000 is not allowed, use 1 to 65535'],
    ['listener.port', '80', "config: listener.port: '80' is not allowed, use a number"],
    ['listener.port', 80.5, 'config: listener.port: 80.5 is not allowed, use a whole number'],
    ['clusters', [], 'config: clusters: has 0 items, use at least 1'],
    ['clusters.0.name', '', "config: clusters.0.name: '' is not allowed, use text, not nothing"],
    ['clusters.0.name', undefined, 'config: clusters.0.name: is missing'],
    [
      'clusters.0.auth.kind',
      'ntlm',
      "config: clusters.0.auth.kind: 'ntlm' is not allowed, use bearer or basic or header or redis or serviceAccountToken or oauth2ClientCredentials or awsSigV4 or gcpIdToken or postgres",
    ],
    ['clusters.0.tls.ca', { kind: 'secret', name: 'x' }, 'config: clusters.0.tls.ca.key: is missing'],
    ['retry', 'yes', "config: retry: 'yes' is not allowed, use an object"],
  ]
  for (const [path, value, message] of messages) {
    it(message, () => {
      const config = full()
      change(config, path.split('.'), value)
      assert.throws(() => parseConfig(config), { message })
    })
  }

  it('says what a whole document should be', () => {
    assert.throws(() => parseConfig(null), { message: 'config: document: null is not allowed, use an object' })
    assert.throws(() => parseConfig([]), { message: 'config: document: [] is not allowed, use an object' })
  })
})
