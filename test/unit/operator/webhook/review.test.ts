import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { silentLog } from '../../../../common/log.ts'
import type { InjectableAmbassador } from '../../../../operator/webhook/ambassador.ts'
import type { Json, JsonObject } from '../../../../operator/webhook/json.ts'
import { Lookup } from '../../../../operator/webhook/lookup.ts'
import { applyPatch } from '../../../../operator/webhook/patch.ts'
import {
  type AdmissionRequest,
  answer,
  parseReview,
  Reviewer,
  type Verdict,
} from '../../../../operator/webhook/review.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'
import { ambassador, asking, injected, nodes, pod, SETTINGS, sidecarOf } from '../../../helpers/injection.ts'

const INJECT = 'ambassador.dev/inject'

interface Setup {
  readonly ambassadors?: readonly InjectableAmbassador[]
  /** Of the API server. */
  readonly fetch?: () => Promise<InjectableAmbassador | undefined>
}

const reviewer = ({ ambassadors = [ambassador('payments')], fetch = async () => undefined }: Setup = {}): Reviewer => {
  const clock = new FakeClock()
  const source = {
    cached: (namespace: string, name: string) =>
      namespace === 'shop' ? ambassadors.find((each) => each.name === name) : undefined,
    names: () => ambassadors.map((each) => each.name),
    fetch,
  }
  const settings = { ...SETTINGS, excludedNamespaces: ['ambassador-system'] }
  return new Reviewer({ lookup: new Lookup(source, clock), nodes: nodes(), settings, clock, log: silentLog })
}

const request = (object: JsonObject | undefined, changes: Partial<AdmissionRequest> = {}): AdmissionRequest => ({
  uid: 'u-1',
  kind: String(object?.['kind'] ?? 'Pod'),
  namespace: 'shop',
  operation: 'CREATE',
  subResource: '',
  dryRun: false,
  object,
  ...changes,
})

const reviewPod = (object: JsonObject | undefined, changes: Partial<AdmissionRequest> = {}, setup: Setup = {}) =>
  reviewer(setup).pod(request(object, changes), Number.MAX_SAFE_INTEGER)

const reviewWorkload = (object: JsonObject | undefined, changes: Partial<AdmissionRequest> = {}, setup: Setup = {}) =>
  reviewer(setup).workload(request(object, changes), Number.MAX_SAFE_INTEGER)

const workload = (
  own: string | null,
  template: Record<string, string> | null,
  kind = 'Deployment',
  spec: JsonObject = {},
): JsonObject => ({
  apiVersion: 'apps/v1',
  kind,
  metadata: { name: 'checkout', annotations: own === null ? {} : { [INJECT]: own } },
  spec: {
    template: {
      metadata: template === null ? {} : { annotations: template },
      spec: { containers: [{ name: 'app' }], ...spec },
    },
  },
})

const outline = ({ result, reason, allowed, patch }: Verdict): unknown => [result, reason, allowed, patch.length > 0]
const skips = async (verdict: Promise<Verdict>, reason: string): Promise<void> =>
  assert.deepEqual(outline(await verdict), ['skipped', reason, true, false])

describe('reading an AdmissionReview', () => {
  const review = (changes: JsonObject): Json => ({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: { uid: 'u-1' },
    ...changes,
  })

  it('takes what it needs and lets everything be missing but the uid', () => {
    assert.deepEqual(parseReview(review({})), {
      uid: 'u-1',
      kind: '',
      namespace: '',
      operation: '',
      subResource: '',
      dryRun: false,
      object: undefined,
    })
  })

  it('refuses another version and says which it answers', () => {
    assert.equal(
      parseReview(review({ apiVersion: 'admission.k8s.io/v1beta1' })),
      'the body is "AdmissionReview" of "admission.k8s.io/v1beta1"; this webhook answers AdmissionReview of admission.k8s.io/v1, set admissionReviewVersions to [v1]',
    )
    assert.match(String(parseReview({})), /^the body is null of null; /)
  })

  it('refuses what is no review', () => {
    for (const body of [null, 1, 'x', [], true]) {
      assert.equal(parseReview(body), 'the body is not an AdmissionReview but another JSON value')
    }
    const parts: Json[] = [null, [], {}, { uid: '' }, { uid: 1 }]
    for (const part of parts) {
      assert.equal(parseReview(review({ request: part })), 'the AdmissionReview has no request with a uid')
    }
  })
})

describe('answering a review', () => {
  const verdict: Verdict = { result: 'unchanged', reason: '', allowed: true, message: '', patch: [], warnings: [] }

  it('echoes the uid, and has no patchType without a patch', () => {
    assert.deepEqual(answer('u-9', verdict), {
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: { uid: 'u-9', allowed: true },
    })
  })

  it('sends the patch in base64', () => {
    const patch = [{ op: 'add' as const, path: '/ü', value: 1 }]
    const { response } = answer('u', { ...verdict, patch }) as { response: { patch: string; patchType: string } }
    assert.deepEqual(JSON.parse(Buffer.from(response.patch, 'base64').toString()), patch)
    assert.equal(response.patchType, 'JSONPatch')
  })

  it('cuts warnings where API servers would', () => {
    const { response } = answer('u', { ...verdict, warnings: ['a'.repeat(300), 'b'] }) as {
      response: { warnings: string[] }
    }
    assert.deepEqual(response.warnings, [`${'a'.repeat(255)}…`, 'b'])
  })

  it('gives the reason as a word and the message as a sentence', () => {
    const denied: Verdict = { ...verdict, result: 'denied', reason: 'HostNetwork', allowed: false, message: 'no' }
    assert.deepEqual((answer('u', denied) as { response: JsonObject }).response['status'], {
      code: 403,
      message: 'no',
      reason: 'HostNetwork',
      status: 'Failure',
    })
  })
})

describe('reviewing a pod', () => {
  it('injects, and again changes nothing', async () => {
    const object = asking('payments')
    const verdict = await reviewPod(object)
    assert.deepEqual(outline(verdict), ['injected', '', true, true])
    const once = applyPatch(object, verdict.patch) as JsonObject
    assert.equal(sidecarOf(once)['name'], 'ambassador')
    assert.deepEqual(outline(await reviewPod(once)), ['unchanged', '', true, false])
  })

  it('gives the same patch on a dry run', async () => {
    const object = asking('payments')
    assert.deepEqual((await reviewPod(object, { dryRun: true })).patch, (await reviewPod(object)).patch)
  })

  it('takes the namespace of the request, never that of the object', async () => {
    const object = { ...asking('payments'), metadata: { namespace: 'shop', annotations: { [INJECT]: 'payments' } } }
    const verdict = await reviewPod(object, { namespace: 'elsewhere' })
    assert.equal(
      verdict.message,
      'ambassador.dev/inject: Ambassador "payments" does not exist in namespace "elsewhere" (did you mean "payments"?); create it or correct the annotation',
    )
  })

  it('does not look at owners: a pod of any controller, or of none, is a pod', async () => {
    const object = asking('payments')
    const owned = {
      ...object,
      metadata: { ...(object['metadata'] as JsonObject), ownerReferences: [{ kind: 'Workflow', controller: true }] },
    }
    assert.equal((await reviewPod(owned)).result, 'injected')
  })

  it('leaves alone what is not the creation of a pod', async () => {
    for (const operation of ['UPDATE', 'DELETE', 'CONNECT', ''])
      await skips(reviewPod(asking('payments'), { operation }), 'NotCreated')
    for (const subResource of ['ephemeralcontainers', 'resize', 'status', 'binding', 'exec']) {
      await skips(reviewPod(asking('payments'), { subResource }), 'NotCreated')
    }
    await skips(reviewPod(undefined), 'NotCreated')
    await skips(reviewPod(asking('payments'), { kind: 'Node' }), 'NotOurKind')
  })

  it('leaves alone what did not ask, and namespaces of Kubernetes and of the operator', async () => {
    await skips(reviewPod(pod({})), 'NotAnnotated')
    await skips(reviewPod(asking('false')), 'OptedOut')
    for (const namespace of ['kube-system', 'kube-public', 'kube-node-lease', 'ambassador-system']) {
      await skips(reviewPod(asking('payments'), { namespace }), 'ExcludedNamespace')
    }
  })

  it('takes the sidecar out of a copy of an injected pod that opted out', async () => {
    const once = injected(asking('payments'))
    const metadata = once['metadata'] as { annotations: JsonObject }
    const off = { ...once, metadata: { ...metadata, annotations: { ...metadata.annotations, [INJECT]: 'false' } } }
    const verdict = await reviewPod(off)
    assert.equal(verdict.result, 'removed')
    assert.deepEqual(applyPatch(off, verdict.patch), asking('false'))
  })

  it('refuses with reason and message', async () => {
    const verdict = await reviewPod(asking('paymnts'))
    assert.deepEqual(outline(verdict), ['denied', 'AmbassadorNotFound', false, false])
    assert.match(verdict.message, /did you mean "payments"\?/)
  })

  it('refuses when the API server cannot be asked about a name that is not in the cache', async () => {
    const verdict = await reviewPod(
      asking('payments,cache'),
      {},
      { fetch: () => Promise.reject(new Error('unreachable')) },
    )
    assert.equal(verdict.reason, 'LookupFailed')
    assert.equal(
      verdict.message,
      'ambassador.dev/inject: "payments", "cache" cannot be looked up now, the API server does not answer the operator; try again',
    )
  })

  it('finds what the cache does not have yet', async () => {
    const verdict = await reviewPod(asking('new'), {}, { fetch: async () => ambassador('new') })
    assert.equal(verdict.result, 'injected')
  })

  it('says when a sidecar was edited by hand', async () => {
    const once = JSON.parse(JSON.stringify(injected(asking('payments')))) as {
      spec: { initContainers: { image: string }[] }
    }
    once.spec.initContainers[0]!.image = 'mine'
    const verdict = await reviewPod(once as never)
    assert.equal(verdict.result, 'injected')
    assert.deepEqual(verdict.warnings, [
      'the sidecar in this pod was changed by hand and is rendered anew; use the annotations ambassador.dev/... instead',
    ])
  })

  it('makes a fault of ours a refusal that names us', async () => {
    const broken = new Reviewer({
      lookup: {
        known: () => {
          throw new TypeError('boom')
        },
      } as never,
      nodes: nodes(),
      settings: SETTINGS,
      clock: new FakeClock(),
      log: silentLog,
    })
    const verdict = await broken.pod(request(asking('payments')), 0)
    assert.deepEqual(outline(verdict), ['error', 'InternalError', false, false])
    assert.equal(verdict.message, 'ambassador.dev/inject: fault of the operator: boom')
    assert.equal((answer('u', verdict) as { response: { status: { code: number } } }).response.status.code, 500)
  })
})

describe('reviewing a workload', () => {
  it('copies the annotation of the object into its template', async () => {
    const object = workload('payments', null)
    const verdict = await reviewWorkload(object, { operation: 'UPDATE' })
    assert.deepEqual(outline(verdict), ['copied', '', true, true])
    assert.deepEqual(verdict.patch, [
      {
        op: 'add',
        path: '/spec/template/metadata/annotations',
        value: { [INJECT]: 'payments', 'ambassador.dev/copied-from-workload': 'payments' },
      },
    ])
    assert.deepEqual(verdict.warnings, [])
    const again = applyPatch(object, verdict.patch) as JsonObject
    assert.deepEqual(outline(await reviewWorkload(again, { operation: 'UPDATE' })), ['unchanged', '', true, false])
  })

  it('takes the copy out again', async () => {
    const object = workload(null, { [INJECT]: 'payments', 'ambassador.dev/copied-from-workload': 'payments' })
    assert.deepEqual((await reviewWorkload(object, { operation: 'UPDATE' })).patch, [
      { op: 'remove', path: '/spec/template/metadata' },
    ])
  })

  it('reads the kind from the request when the object does not say it', async () => {
    const { kind: _, ...object } = workload('payments', null)
    const verdict = await reviewWorkload(object, { kind: 'Deployment' })
    assert.deepEqual(
      verdict.patch.map(({ path }) => path),
      ['/spec/template/metadata/annotations'],
    )
  })

  it('leaves alone what a controller made', async () => {
    const object = workload('payments', null, 'ReplicaSet')
    const owned = {
      ...object,
      metadata: { ...(object['metadata'] as JsonObject), ownerReferences: [{ kind: 'Deployment', controller: true }] },
    }
    await skips(reviewWorkload(owned), 'HasController')
  })

  it('leaves alone other kinds, subresources, deletions and namespaces', async () => {
    await skips(reviewWorkload(workload('payments', null), { kind: 'Pod' }), 'NotOurKind')
    await skips(reviewWorkload(workload('payments', null), { subResource: 'scale' }), 'NotCreated')
    await skips(reviewWorkload(workload('payments', null), { operation: 'DELETE' }), 'NotCreated')
    await skips(reviewWorkload(undefined), 'NotCreated')
    await skips(reviewWorkload(workload('payments', null), { namespace: 'kube-system' }), 'ExcludedNamespace')
  })

  it('copies into a Job that is created, and says what to do about one that exists', async () => {
    const job = workload('payments', null, 'Job')
    assert.equal((await reviewWorkload(job)).result, 'copied')
    const verdict = await reviewWorkload(job, { operation: 'UPDATE' })
    assert.deepEqual(outline(verdict), ['unchanged', '', true, false])
    assert.deepEqual(verdict.warnings, [
      'ambassador.dev/inject: the pod template of a Job cannot change after its creation, so this has no effect; delete the Job and create it again with the annotation',
    ])
  })

  it('says of a ReplicaSet that it keeps its pods', async () => {
    const verdict = await reviewWorkload(workload('payments', null, 'ReplicaSet'), { operation: 'UPDATE' })
    assert.deepEqual(verdict.warnings, [
      'a ReplicaSet keeps the pods that it has; delete them to have new ones with the change',
    ])
  })

  it('warns at once of what its pods will be refused for, and allows it', async () => {
    const says = async (object: JsonObject): Promise<readonly string[]> => {
      const verdict = await reviewWorkload(object)
      assert.equal(verdict.allowed, true)
      return verdict.warnings
    }
    assert.deepEqual(await says(workload('paymnts', null)), [
      'pods of this Deployment will be refused: ambassador.dev/inject: Ambassador "paymnts" does not exist in namespace "shop" (did you mean "payments"?); create it or correct the annotation',
    ])
    assert.deepEqual(await says(workload(null, { [INJECT]: 'a,,b' })), [
      'pods of this Deployment will be refused: ambassador.dev/inject: item 2 of "a,,b" is empty; remove the comma too many',
    ])
    assert.deepEqual(await says(workload(null, { [INJECT]: 'payments', 'ambassador.dev/log-level': 'loud' })), [
      'pods of this Deployment will be refused: ambassador.dev/log-level: "loud" is not one of debug, info, warn, error',
    ])
    assert.match((await says(workload('payments', null, 'Deployment', { hostNetwork: true })))[0] ?? '', /hostNetwork/)
  })

  it('passes on the warnings that its pods would get', async () => {
    const object = workload(null, { [INJECT]: 'payments', 'ambassador.dev/loglevel': 'debug' })
    assert.deepEqual((await reviewWorkload(object)).warnings, [
      'annotation "ambassador.dev/loglevel" is not known and does nothing, did you mean "ambassador.dev/log-level"?',
    ])
  })

  it('says of settings on the workload itself where they belong, and of a typing error there what was meant', async () => {
    for (const [kind, place] of [
      ['Deployment', 'spec.template'],
      ['CronJob', 'spec.jobTemplate.spec.template'],
    ] as const) {
      const annotations = { [INJECT]: 'payments', 'ambassador.dev/log-level': 'debug', 'ambassador.dev/injct': 'cache' }
      const object = { ...workload('payments', null, kind), metadata: { name: 'checkout', annotations } }
      assert.deepEqual((await reviewWorkload(object)).warnings, [
        `annotation "ambassador.dev/log-level" does nothing on the ${kind} itself, move it to ${place}.metadata.annotations`,
        'annotation "ambassador.dev/injct" is not known and does nothing, did you mean "ambassador.dev/inject"?',
      ])
    }
  })

  it('says of annotations of the Jobs of a CronJob where they belong, since nothing reads them there', async () => {
    const object = {
      kind: 'CronJob',
      metadata: { name: 'report' },
      spec: {
        jobTemplate: {
          metadata: { annotations: { [INJECT]: 'payments', 'ambassador.dev/log-level': 'debug', other: 'x' } },
          spec: { template: { spec: { containers: [{ name: 'app' }] } } },
        },
      },
    }
    const { warnings, patch } = await reviewWorkload(object)
    assert.deepEqual(
      warnings,
      [INJECT, 'ambassador.dev/log-level'].map(
        (key) =>
          `annotation "${key}" does nothing at spec.jobTemplate.metadata, move it to spec.jobTemplate.spec.template.metadata.annotations`,
      ),
    )
    assert.deepEqual(patch, [])
  })

  it('says of a label with the name of the annotation that it does nothing', async () => {
    const labels = { [INJECT]: 'payments' }
    const template = { metadata: { labels }, spec: { containers: [{ name: 'app' }] } }
    const object = { kind: 'Deployment', metadata: { name: 'checkout', labels }, spec: { template } }
    const { warnings, patch } = await reviewWorkload(object)
    assert.deepEqual(
      warnings,
      ['the Deployment', 'spec.template'].map(
        (place) => `label "${INJECT}" of ${place} does nothing, write it as an annotation`,
      ),
    )
    assert.deepEqual(patch, [])
  })

  it('does not warn of a config that is being published, nor when the API server cannot be asked', async () => {
    const unpublished = {
      ambassadors: [ambassador('payments', { config: null })],
      fetch: async () => ambassador('payments', { config: null }),
    }
    assert.deepEqual((await reviewWorkload(workload('payments', null), {}, unpublished)).warnings, [])
    const unreachable = { fetch: () => Promise.reject(new Error('unreachable')) }
    assert.deepEqual((await reviewWorkload(workload('other', null), {}, unreachable)).warnings, [])
  })

  it('says nothing about one that opted out', async () => {
    assert.deepEqual((await reviewWorkload(workload('false', { [INJECT]: 'nothing' }))).warnings, [])
  })
})
