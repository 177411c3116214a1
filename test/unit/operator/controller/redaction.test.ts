/** Secrets that the operator may read where it checks references, looked for in everything that it writes: status, Events, ConfigMaps, log. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ambassador } from '../../../../operator/api/ambassador.ts'
import { Fleets } from '../../../../operator/controller/fleets.ts'
import { reconcile } from '../../../../operator/controller/reconcile.ts'
import { RefChecker } from '../../../../operator/controller/secret-checks.ts'
import { Pace, StatusWriter } from '../../../../operator/controller/write.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import type { KubeObject } from '../../../../operator/kube/objects.ts'
import { NO_SERVICES } from '../../../../operator/render/services.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'
import { Hidden } from '../../../helpers/hidden.ts'
import { fakeKubeClient } from '../../../helpers/kube-client.ts'

const hidden = new Hidden()
/** As the API server sends it. */
const encoded = (place: string): string => Buffer.from(hidden.hide(place)).toString('base64')

const SECRETS: Readonly<Record<string, Record<string, string>>> = {
  bearer: { token: encoded('token') },
  lacks: { other: encoded('value of another key') },
  pair: { 'tls.crt': encoded('certificate'), 'tls.key': encoded('private key') },
  basic: { username: encoded('user'), password: encoded('password') },
}

const key = (name: string) => ({ secretKeyRef: { name, key: 'token' } })
const endpoints = [{ host: 'db.example', port: 443 }]
const upstreams = [
  { name: 'bearer', endpoints, auth: { bearer: key('bearer') } },
  { name: 'lacks', endpoints, auth: { bearer: key('lacks') } },
  { name: 'missing', endpoints, auth: { bearer: key('missing') } },
  { name: 'basic', endpoints, auth: { basic: { secretName: 'basic' } } },
  { name: 'pair', endpoints, tls: { clientCertificate: { secretName: 'pair' } } },
]

describe('what the operator writes', () => {
  it('has the names and keys of Secrets, and never a value', async () => {
    const clock = new FakeClock()
    const client = fakeKubeClient()
    const written: string[] = []
    const log = Object.fromEntries(
      ['debug', 'info', 'warn', 'error'].map((level) => [
        level,
        (fields: object, message: string) => written.push(JSON.stringify(fields) + message),
      ]),
    ) as never
    const state = {
      ambassador: {
        apiVersion: 'ambassador.dev/v1alpha1',
        kind: 'Ambassador',
        metadata: { name: 'payments', namespace: 'shop', uid: 'u1', generation: 1 },
        spec: { protocol: 'HTTP', listen: { port: 8081 }, upstreams },
      } as unknown as Ambassador,
    }
    let reads = 0
    client.respond(({ path, method, body }) => {
      const [, name = ''] = /\/secrets\/(.*)$/.exec(path) ?? []
      if (name !== '') {
        reads++
        if (SECRETS[name] === undefined) throw new ApiError('not found', { status: 404, reason: 'NotFound' })
        return { metadata: { name }, data: SECRETS[name] }
      }
      if (method === undefined) throw new ApiError('not found', { status: 404, reason: 'NotFound' })
      written.push(JSON.stringify(body))
      const { status } = body as Pick<Ambassador, 'status'>
      if (status !== undefined) state.ambassador = { ...state.ambassador, status }
      const object = body as KubeObject
      return { ...object, metadata: { ...object.metadata, uid: 'c1', resourceVersion: '1', managedFields: [] } }
    })
    await reconcile('shop/payments', {
      client,
      clock,
      ambassadors: { get: () => state.ambassador },
      configMaps: { get: () => undefined },
      injected: { byIndex: () => [] },
      uninjected: { byIndex: () => [] },
      reports: { of: () => ({ kind: 'starting' }) },
      workloads: { rolloutsOf: () => ({ rollouts: [], unknown: false }) },
      services: {
        want: () => {},
        known: async () => {},
        resolve: () => NO_SERVICES({ namespace: 'shop', name: 'x', port: 1 }),
      },
      pace: new Pace(clock),
      fleets: new Fleets(clock),
      refChecker: new RefChecker({ client, clock, log, namespaces: new Set(['shop']) }),
      proxyImage: null,
      statusWriter: new StatusWriter({ client, clock }),
      events: { record: (regarding, event) => written.push(JSON.stringify([regarding, event])) },
      onPublished: () => {},
      onConfigMap: () => {},
    })
    const all = written.join('\n')
    assert.equal(reads, 5)
    const refs = state.ambassador.status?.conditions?.find(({ type }) => type === 'ResolvedRefs')
    assert.equal(refs?.reason, 'ReferenceMissing')
    assert.match(refs?.message ?? '', /'lacks'|'missing'/)
    assert.match(all, /"action":"ResolvedRefs"/)
    assert.deepEqual(hidden.shownIn(all), [])
    // It would be found: a value is base64 in the object, and its text is looked for in that form too.
    assert.deepEqual(hidden.shownIn(JSON.stringify(SECRETS)).length, hidden.size)
  })
})
