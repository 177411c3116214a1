import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { liftLocalRefs, restoreLocalRefs } from '../../../cli/local-refs.ts'
import { configHash } from '../../../common/config-hash.ts'
import { tokenName } from '../../../common/object-names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { checkObject } from '../../../operator/api/check.ts'
import { schema } from '../../../operator/api/crd.ts'
import { render } from '../../../operator/render/render.ts'

/** An Ambassador whose only upstream has this beside its endpoints. */
function ambassador(upstream: object): object {
  return {
    apiVersion: 'ambassador.dev/v1alpha1',
    kind: 'Ambassador',
    metadata: { name: 'payments' },
    spec: {
      protocol: 'HTTP',
      listen: { port: 8081 },
      upstreams: [{ name: 'live', endpoints: [{ host: 'a.example', port: 443 }], ...upstream }],
    },
  }
}

/** The cluster that comes out, as `ambassador run` makes it. */
function cluster(upstream: object) {
  const { object, locals, issues } = liftLocalRefs(ambassador(upstream), '/dir')
  assert.deepEqual([...issues, ...checkObject(object)], [])
  const { config } = render({ ambassador: object as Ambassador })
  assert.ok(config)
  const restored = restoreLocalRefs(config, locals)
  assert.equal(restored.hash, configHash(restored))
  return restored.clusters[0]
}

function issues(upstream: object): string[] {
  const lifted = liftLocalRefs(ambassador(upstream), '/dir')
  return [...lifted.issues, ...checkObject(lifted.object)].map(({ field, message }) => `${field}: ${message}`)
}

/** Paths of every field that refers to a Secret or a ConfigMap, as the definition of the resource has them. */
function references(
  at: { readonly properties?: object; readonly items?: object },
  path: readonly string[] = [],
): string[][] {
  const fields = Object.entries(at.properties ?? {})
  if (fields.some(([name]) => name === 'secretKeyRef' || name === 'configMapKeyRef')) return [[...path]]
  if (fields.some(([name]) => name === 'secretName')) return [[...path]]
  const inItems = at.items === undefined ? [] : references(at.items, path)
  return [...inItems, ...fields.flatMap(([name, field]) => references(field, [...path, name]))]
}

describe('local references', () => {
  it('stand for every reference that the resource knows', () => {
    const paths = references(schema().properties?.['spec']?.properties?.['upstreams'] ?? {})
    assert.ok(paths.length >= 15, `${paths.length}`)
    for (const path of paths) {
      const pairs: Record<string, object> = {
        basic: { username: { env: 'A' }, password: { env: 'B' } },
        clientCertificate: { certificate: { env: 'A' }, privateKey: { env: 'B' } },
      }
      const holder = pairs[path.at(-1) ?? ''] ?? { env: 'A' }
      const upstream = path.reduceRight<object>((inner, name) => ({ [name]: inner }), holder)
      const { object, locals } = liftLocalRefs(ambassador(upstream), '/dir')
      assert.ok(locals.size > 0, path.join('.'))
      assert.doesNotMatch(JSON.stringify(object), /"env"/, path.join('.'))
    }
  })

  it('stand for a key, beside or inside the reference that they replace', () => {
    for (const bearer of [{ env: 'TOKEN' }, { secretKeyRef: { env: 'TOKEN' } }]) {
      assert.deepEqual(cluster({ auth: { bearer } })?.auth, { kind: 'bearer', token: { kind: 'env', name: 'TOKEN' } })
    }
    for (const ca of [
      { file: 'ca.pem' },
      { secretKeyRef: { file: 'ca.pem' } },
      { configMapKeyRef: { file: 'ca.pem' } },
    ]) {
      assert.deepEqual(cluster({ tls: { ca } })?.tls?.ca, { kind: 'file', path: '/dir/ca.pem' })
    }
  })

  it('stand in the credential that is fetched', () => {
    const oauth2ClientCredentials = {
      tokenUrl: 'https://login.example.com/token',
      clientId: 'shop',
      clientSecret: { env: 'SECRET' },
      tls: { ca: { file: 'ca.pem' }, clientCertificate: { certificate: { file: 'c' }, privateKey: { file: 'k' } } },
    }
    assert.deepEqual(cluster({ auth: { oauth2ClientCredentials } })?.auth, {
      kind: 'oauth2ClientCredentials',
      tokenUrl: 'https://login.example.com/token',
      clientId: 'shop',
      clientSecret: { kind: 'env', name: 'SECRET' },
      scopes: [],
      audience: null,
      tls: {
        serverName: null,
        ca: { kind: 'file', path: '/dir/ca.pem' },
        clientCertificate: {
          certificate: { kind: 'file', path: '/dir/c' },
          privateKey: { kind: 'file', path: '/dir/k' },
        },
        minVersion: 'TLSv1.2',
      },
    })
  })

  it('stand for the token of the service account, which only a pod has', () => {
    const serviceAccountToken = { audience: 'vault', file: 'token' }
    assert.deepEqual(cluster({ auth: { serviceAccountToken } })?.auth, {
      kind: 'serviceAccountToken',
      token: { kind: 'file', path: '/dir/token' },
    })
    assert.deepEqual(cluster({ auth: { serviceAccountToken: { audience: 'vault', expirationSeconds: 900 } } })?.auth, {
      kind: 'serviceAccountToken',
      token: { kind: 'token', name: tokenName('vault', 900), audience: 'vault' },
    })
  })

  it('stand for the list of endpoints', () => {
    for (const file of [{ file: 'endpoints' }, { configMapKeyRef: { file: 'endpoints' } }]) {
      const discovery = { kind: 'file', ref: { kind: 'file', path: '/dir/endpoints' } }
      assert.deepEqual(cluster({ endpoints: undefined, file })?.discovery, discovery)
    }
  })

  it('keep what stands beside them', () => {
    assert.deepEqual(cluster({ auth: { header: { name: 'X-Key', file: '/abs/key' } } })?.auth, {
      kind: 'header',
      name: 'X-Key',
      value: { kind: 'file', path: '/abs/key' },
    })
  })

  it('stand for the two keys of a Secret that is named as a whole', () => {
    assert.deepEqual(cluster({ auth: { basic: { username: { env: 'U' }, password: { file: 'p' } } } })?.auth, {
      kind: 'basic',
      username: { kind: 'env', name: 'U' },
      password: { kind: 'file', path: '/dir/p' },
    })
    const clientCertificate = { certificate: { file: 'c' }, privateKey: { file: 'k' } }
    assert.deepEqual(cluster({ tls: { clientCertificate } })?.tls?.clientCertificate, {
      certificate: { kind: 'file', path: '/dir/c' },
      privateKey: { kind: 'file', path: '/dir/k' },
    })
  })

  it('leave references to Secrets as they are', () => {
    const bearer = { secretKeyRef: { name: 'payments-token', key: 'token' } }
    assert.deepEqual(cluster({ auth: { bearer } })?.auth, {
      kind: 'bearer',
      token: { kind: 'secret', name: 'payments-token', key: 'token' },
    })
  })

  it('are refused when they say two things, nothing, or half', () => {
    const field = 'spec.upstreams[0].auth'
    assert.deepEqual(issues({ auth: { bearer: { file: 'a', env: 'B' } } }), [
      `${field}.bearer: has both file and env, use one of the two`,
    ])
    assert.deepEqual(issues({ auth: { bearer: { file: 5 } } }), [`${field}.bearer: file is not a path: use text`])
    assert.deepEqual(issues({ auth: { bearer: { env: '' } } }), [
      `${field}.bearer: env is not the name of a variable: use text`,
    ])
    assert.deepEqual(issues({ auth: { basic: { username: { env: 'U' } } } }), [
      `${field}.basic: needs both username and password`,
    ])
    const basic = { secretName: 'x', username: { env: 'U' }, password: { env: 'P' } }
    assert.deepEqual(issues({ auth: { basic } }), [`${field}.basic: has secretName too, use one of the two`])
  })

  it('never fail on what is not an Ambassador at all', () => {
    for (const object of [{}, { spec: null }, { spec: { upstreams: 'x' } }, { spec: { upstreams: [null, 5] } }]) {
      assert.deepEqual(liftLocalRefs(object, '/').object, object)
    }
  })
})
