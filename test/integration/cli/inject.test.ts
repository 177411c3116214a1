import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { load, loadAll } from 'js-yaml'
import { execute, type Json, type Result } from '../../e2e/lib/kubectl.ts'
import { programArgs } from '../../helpers/built.ts'

const folder = mkdtempSync(join(tmpdir(), 'ambassador-inject-'))
after(() => rmSync(folder, { recursive: true }))

const cli = async (args: readonly string[], input = ''): Promise<Result> =>
  execute(process.execPath, await programArgs(['cli/main.ts', ...args]), { input, timeoutMs: 60_000 })

const AMBASSADOR = `
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: payments, namespace: shop }
spec:
  protocol: HTTP
  listen: { port: 8081 }
  upstreams: [{ name: live, endpoints: [{ host: api.example.com, port: 443 }], tls: {} }]
`
const DEPLOYMENT = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: checkout, namespace: shop, annotations: { ambassador.dev/inject: payments } }
spec:
  template:
    metadata: { labels: { app: checkout } }
    spec:
      containers: [{ name: app, image: "app:1", env: [{ name: ANSWER, value: "no" }] }]
`
const SERVICE = `
apiVersion: v1
kind: Service
metadata: { name: checkout, namespace: shop }
spec: { ports: [{ port: 80 }] }
`
const stream = [AMBASSADOR, DEPLOYMENT, SERVICE].join('---')

const objects = (text: string): Json[] => loadAll(text) as Json[]
const sidecarOf = (deployment: Json): Json => deployment.spec.template.spec.initContainers[0]

describe('ambassador inject', { concurrency: 3 }, () => {
  it('prints the whole stream, with the sidecar in the pods that ask', async () => {
    const { code, stdout, stderr } = await cli(['inject', '-f', '-'], stream)
    assert.deepEqual([code, stderr], [0, ''])
    const [ambassador, deployment, service] = objects(stdout)
    assert.deepEqual(ambassador, load(AMBASSADOR))
    assert.deepEqual(service, load(SERVICE))
    assert.equal(sidecarOf(deployment).name, 'ambassador')
    assert.equal(sidecarOf(deployment).image, 'localhost/ambassador-proxy:dev')
    assert.match(stdout, /value: 'no'/, 'a string stays a string for readers of YAML 1.1')
  })

  it('gives the same again, and uninject gives back what was there', async () => {
    const once = await cli(['inject', '-f', '-'], stream)
    const twice = await cli(['inject', '-f', '-'], once.stdout)
    assert.equal(twice.stdout, once.stdout)
    const back = await cli(['uninject', '-f', '-'], once.stdout)
    assert.deepEqual([back.code, back.stderr], [0, ''])
    assert.deepEqual(objects(back.stdout), objects(stream))
  })

  it('finds Ambassadors in other files, by namespace, and takes another image', async () => {
    const file = join(folder, 'ambassadors.yaml')
    writeFileSync(file, AMBASSADOR)
    const args = ['inject', '-f', '-', '--ambassadors', file, '--image', 'proxy:2']
    const found = await cli(args, DEPLOYMENT)
    assert.deepEqual([found.code, objects(found.stdout).length], [0, 1])
    assert.equal(sidecarOf(objects(found.stdout)[0]).image, 'proxy:2')
    const elsewhere = await cli(args, DEPLOYMENT.replace('namespace: shop', 'namespace: other'))
    assert.equal(elsewhere.code, 1)
    assert.equal(
      elsewhere.stderr,
      '<stdin>:4: Deployment \'checkout\': ambassador.dev/inject: Ambassador "payments" does not exist in namespace "other"; create it or correct the annotation\n',
    )
  })

  it('leaves out what cannot be injected, says where and why, and prints the rest', async () => {
    const broken = DEPLOYMENT.replace('inject: payments', 'inject: paymnts')
    const { code, stdout, stderr } = await cli(['inject', '-f', '-'], [AMBASSADOR, broken, SERVICE].join('---'))
    assert.equal(code, 1)
    assert.match(stderr, /^<stdin>:\d+: Deployment 'checkout': .*\(did you mean "payments"\?\)/)
    assert.deepEqual(
      objects(stdout).map((each) => each.kind),
      ['Ambassador', 'Service'],
    )
  })

  it('refuses an annotation of a workload that is not text, since a false without quotes means to opt out', async () => {
    const own = DEPLOYMENT.replace(
      /^metadata:.*$/m,
      'metadata: { name: checkout, annotations: { ambassador.dev/inject: false } }',
    )
    const { code, stderr, stdout } = await cli(['inject', '-f', '-'], [AMBASSADOR, own].join('---'))
    assert.equal(code, 1)
    assert.match(
      stderr,
      /^<stdin>:\d+: Deployment 'checkout': ambassador\.dev\/inject: the value is not a string; write it in quotes$/m,
    )
    assert.deepEqual(
      objects(stdout).map((each) => each.kind),
      ['Ambassador'],
    )
  })

  it('tells what is wrong with an Ambassador that a pod names', async () => {
    const { stderr } = await cli(['inject', '-f', '-'], stream.replace('port: 8081', 'port: 70000'))
    assert.match(
      stderr,
      /Ambassador "payments" is not accepted \(Invalid: spec\.listen\.port: .*\); correct the Ambassador/,
    )
  })

  it('passes over an Ambassador that has no name that it could have', async () => {
    const nameless = AMBASSADOR.replace(/name: payments/, 'name: ""')
    const { code, stdout, stderr } = await cli(['inject', '-f', '-'], [nameless, SERVICE].join('---'))
    assert.deepEqual([code, stderr], [0, ''])
    assert.deepEqual(
      objects(stdout).map((each) => each.kind),
      ['Ambassador', 'Service'],
    )
  })

  it('prints the warnings that the webhook would give', async () => {
    const warned = DEPLOYMENT.replace('ambassador.dev/inject: payments', 'ambassador.dev/inject: payments').replace(
      'metadata: { labels: { app: checkout } }',
      'metadata: { annotations: { ambassador.dev/loglevel: debug } }',
    )
    const { code, stderr } = await cli(['inject', '-f', '-'], [AMBASSADOR, warned].join('---'))
    assert.equal(code, 0)
    assert.match(stderr, /warning: Deployment 'checkout': annotation "ambassador\.dev\/loglevel" is not known/)
  })

  it('says of settings on the workload itself where they belong', async () => {
    const text = DEPLOYMENT.replace(
      '{ ambassador.dev/inject',
      '{ ambassador.dev/log-level: debug, ambassador.dev/inject',
    )
    const { code, stderr } = await cli(['inject', '-f', '-'], [AMBASSADOR, text].join('---'))
    assert.equal(code, 0)
    assert.match(
      stderr,
      /"ambassador\.dev\/log-level" does nothing on the Deployment itself, move it to spec\.template\.metadata\.annotations/,
    )
  })

  it('takes the items of a List for objects of their own', async () => {
    const list = { apiVersion: 'v1', kind: 'List', items: [load(AMBASSADOR), load(DEPLOYMENT)] }
    const { code, stdout } = await cli(['inject', '-f', '-'], JSON.stringify(list))
    assert.equal(code, 0)
    assert.equal(sidecarOf(objects(stdout)[1]).name, 'ambassador')
  })

  it('says what is wrong with its arguments and with files', async () => {
    assert.equal((await cli(['inject'])).code, 2)
    assert.equal((await cli(['inject', '-f', '-', '--ambassadors', '-'])).code, 2)
    assert.equal((await cli(['inject', '--nothing'])).code, 2)
    assert.equal((await cli(['uninject', '-f', join(folder, 'none.yaml')])).code, 1)
    const broken = await cli(['inject', '-f', '-'], 'a: [')
    assert.equal(broken.code, 1)
    assert.match(broken.stderr, /^<stdin>:\d+: is not YAML: /)
  })

  it('has a usage text', async () => {
    assert.match((await cli(['inject', '--help'])).stdout, /^Usage: ambassador inject -f FILE/)
    assert.match((await cli(['uninject', '--help'])).stdout, /^Usage: ambassador uninject -f FILE/)
  })
})

describe('ambassador uninject', () => {
  it('leaves alone what is not ours', async () => {
    const own = `
apiVersion: v1
kind: Pod
metadata: { name: x, annotations: { ambassador.dev/status: "{}" } }
spec: { containers: [{ name: ambassador, image: mine }] }
`
    const { code, stdout } = await cli(['uninject', '-f', '-'], own)
    assert.equal(code, 0)
    assert.deepEqual(objects(stdout), [load(own)])
  })
})
