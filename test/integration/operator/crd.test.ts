import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { dump } from 'js-yaml'
import { GROUP, PLURAL, VERSION } from '../../../common/names.ts'
import { crd } from '../../../operator/api/crd.ts'
import { clusterForTests } from '../../cluster/cluster.ts'
import { invalidCases, validCases } from '../../helpers/crd-cases.ts'
import { type YamlClient, yamlClient } from '../../helpers/yaml-client.ts'

// The definition is installed under a group of its own, so that neither a released chart nor a person's Ambassadors in the
// same cluster are touched.
const TEST_GROUP = `crd-test.${GROUP}`
const DEFINITIONS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const NAME = `${PLURAL}.${TEST_GROUP}`
const OBJECTS = `/apis/${TEST_GROUP}/${VERSION}/namespaces/default/${PLURAL}`

interface Status {
  readonly message: string
  readonly details?: { readonly causes?: readonly { readonly field: string; readonly message: string }[] }
}

let client: YamlClient

const asTested = (text: string) =>
  text
    .replaceAll(`${GROUP}/${VERSION}`, `${TEST_GROUP}/${VERSION}`)
    .replace(/(metadata: \{[^}]*), namespace: \w+/, '$1')

/** A creation that is checked and not stored. A server-side apply would say some of it in the words of its merge. */
const dryRun = (text: string) => client.send('POST', `${OBJECTS}?dryRun=All&fieldValidation=Strict`, asTested(text))

describe('the definition on a real API server', () => {
  before(async () => {
    const cluster = await clusterForTests()
    client = await yamlClient(cluster.kubeconfig)
    await remove()
    const definition = crd()
    const created = await client.send(
      'POST',
      DEFINITIONS,
      dump({ ...definition, metadata: { name: NAME }, spec: { ...definition.spec, group: TEST_GROUP } }),
    )
    assert.equal(created.status, 201, JSON.stringify(created.body))
    await until(
      'served',
      async () => (await client.send('GET', `/apis/${TEST_GROUP}/${VERSION}/${PLURAL}`)).status === 200,
    )
  })

  after(async () => {
    await remove()
    client.close()
  })

  for (const { name, text } of validCases()) {
    it(`accepts ${name}`, async () => {
      const { status, body } = await dryRun(text)
      assert.equal(status, 201, (body as Status).message)
    })
  }

  for (const { name, text, says, server } of invalidCases()) {
    it(`refuses ${name} with the expected words`, async () => {
      const { status, body } = await dryRun(text)
      assert.ok(status === 422 || status === 400, `status ${status}: ${JSON.stringify(body)}`)
      assert.deepEqual(linesOf(body as Status, says).sort(), [...says, ...server].sort())
    })
  }

  it('sets the defaults that the reference page tells', async () => {
    const spec =
      'spec: {protocol: TCP, listen: {port: 1}, upstreams: [{name: a, endpoints: [{host: a, port: 2}], tls: {}, circuitBreaker: {}}], rateLimit: {requests: 1, per: 1s}}'
    const { body } = await dryRun(
      `apiVersion: ${GROUP}/${VERSION}\nkind: Ambassador\nmetadata: {name: defaults}\n${spec}\n`,
    )
    assert.deepEqual((body as { spec: unknown }).spec, {
      protocol: 'TCP',
      listen: { port: 1 },
      upstreams: [
        {
          name: 'a',
          endpoints: [{ host: 'a', port: 2, weight: 1, priority: 0 }],
          tls: { minVersion: 'TLSv1.2' },
          circuitBreaker: { openDuration: '30s', halfOpenRequests: 1 },
          loadBalancing: { policy: 'LeastRequest' },
          limits: { maxConnections: 1024, maxPendingRequests: 1024 },
        },
      ],
      timeouts: { connect: '5s' },
      rateLimit: { requests: 1, per: '1s', onLimit: 'Reject' },
      accessLog: { mode: 'Errors' },
    })
  })

  it('takes the status that the operator writes, beside the spec and not with it', async () => {
    const head = `apiVersion: ${GROUP}/${VERSION}\nkind: Ambassador\nmetadata: {name: status}\n`
    const path = `${OBJECTS}/status`
    const spec = 'spec: {protocol: TCP, listen: {port: 1}, upstreams: [{name: a, endpoints: [{host: a, port: 2}]}]}\n'
    const status = `status:
  observedGeneration: 3
  conditions: [{type: Ready, status: "False", reason: NoPods, message: none, observedGeneration: 3, lastTransitionTime: "2026-01-01T00:00:00Z"}]
  config: {hash: 0123456789abcdef, configMapName: ambassador-status, generation: 3}
  pods: {injected: 12, ready: 12, current: 11, missing: 1}
  versions: [{image: "localhost/ambassador-proxy:dev", configHash: 0123456789abcdef, pods: 12}]
  missing: [{pod: checkout-1, reason: no sidecar}]
  summary: {pods: 12/12, upstream: "a:2", version: dev}
`
    try {
      const made = await client.send('PATCH', `${path}?fieldManager=test`, asTested(head + spec + status))
      assert.equal(made.status, 201, (made.body as Status).message)
      assert.equal((made.body as { status?: unknown }).status, undefined)
      const told = await client.send(
        'PATCH',
        `${path}/status?fieldManager=test&fieldValidation=Strict`,
        asTested(head + status),
      )
      assert.equal(told.status, 200, (told.body as Status).message)
      const columns = await client.send('GET', `/apis/${TEST_GROUP}/${VERSION}/namespaces/default/${PLURAL}?as=Table`)
      assert.equal(columns.status, 200)
    } finally {
      await client.send('DELETE', path)
    }
  })
})

/** `field: message`, where the message is ours alone when it is one of the expected ones. */
function linesOf(status: Status, says: readonly string[]): string[] {
  const causes = (status.details?.causes ?? []).filter(
    ({ message }) => !message.includes('some validation rules were not checked'),
  )
  if (causes.length === 0) return [status.message.replace(/^.*(?=strict decoding error)/, '')]
  return causes.map(({ field, message }) => {
    const ours = says.find(
      (line) => line.startsWith(`${field}: `) && message.endsWith(`: ${line.slice(field.length + 2)}`),
    )
    return ours ?? `${field}: ${message}`
  })
}

async function remove(): Promise<void> {
  await client.send('DELETE', `${DEFINITIONS}/${NAME}`)
  await until('gone', async () => (await client.send('GET', `${DEFINITIONS}/${NAME}`)).status === 404)
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 30_000; !(await holds()); await setTimeout(100)) {
    assert.ok(Date.now() < deadline, `the definition is not ${what} after 30 s`)
  }
}
