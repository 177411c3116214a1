import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { dump, load } from 'js-yaml'
import { GROUP, KIND, VERSION } from '../../common/names.ts'
import type { Ambassador, AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { CONDITION_TYPES, CONDITIONS } from '../../operator/api/conditions.ts'
import { digestOf } from '../../operator/controller/config-maps.ts'
import { type Decision, decide } from '../../operator/controller/decide.ts'
import type { ConfigMapState, PodState, SidecarReport, World } from '../../operator/controller/world.ts'
import { lookupOf } from '../../operator/controller/reconcile.ts'
import { configMapOf } from '../../operator/render/objects.ts'
import { render } from '../../operator/render/render.ts'
import { goldenFiles, matchGolden } from '../helpers/golden.ts'

/** A world in few words; what is not said is everyday life. `$HASH` stands for the hash of the spec. */
interface Input {
  readonly about: string
  readonly spec?: AmbassadorSpec
  readonly status?: Ambassador['status']
  readonly deletionTimestamp?: string
  /** Default: ours and right. */
  readonly configMap?: 'absent' | 'foreign' | { readonly hash: string; readonly generation: number }
  readonly pods?: readonly (Partial<PodState> & { readonly name: string; readonly ageMs?: number; readonly report?: InputReport })[]
  readonly missing?: World['missing']
  readonly rollouts?: World['rollouts']
  readonly rolloutsUnknown?: boolean
  readonly checkedRefs?: World['checkedRefs']
  readonly publishFailure?: string
  readonly services?: World['services']
}

/** Default: this generation is in force. Null: the sidecar does not know the Ambassador. */
type InputReport =
  | null
  | { readonly unasked: true }
  | { readonly starting: true }
  | { readonly silent: string }
  | Partial<NonNullable<Extract<SidecarReport, { kind: 'answered' }>['ambassador']>>

const NOW = Date.parse('2026-01-01T12:00:00Z')
const IMAGE = 'ambassador-proxy:0.1.0'
const PLAIN: AmbassadorSpec = {
  protocol: 'HTTP',
  listen: { port: 8081 },
  upstreams: [{ name: 'live', endpoints: [{ host: 'api.example.com', port: 80 }] }],
}

function worldOf(text: string): { world: World; hash: string } {
  const { spec = PLAIN } = load(text) as Input
  const base: Ambassador = {
    apiVersion: `${GROUP}/${VERSION}`,
    kind: KIND,
    metadata: { name: 'payments', namespace: 'shop', uid: 'u1', generation: 3 },
    spec,
  }
  const { config } = render({ ambassador: base })
  const hash = config?.hash ?? 'none'
  const input = load(text.replaceAll('$HASH', `'${hash}'`)) as Input
  const ambassador: Ambassador = {
    ...base,
    metadata: { ...base.metadata, ...(input.deletionTimestamp && { deletionTimestamp: String(input.deletionTimestamp) }) },
    ...(input.status === undefined ? {} : { status: input.status }),
  }
  const right = config === null ? '' : digestOf(configMapOf(ambassador, config))
  return {
    hash,
    world: {
      ambassador,
      configMap: configMap(input.configMap, right, hash),
      services: input.services ?? [],
      pods: (input.pods ?? []).map((pod) => podOf(pod, hash)),
      missing: input.missing ?? [],
      rollouts: input.rollouts ?? [],
      rolloutsUnknown: input.rolloutsUnknown ?? false,
      checkedRefs: input.checkedRefs ?? null,
      publishFailure: input.publishFailure ?? null,
      now: NOW,
    },
  }
}

const NO_SERVICE = { endpointsHash: null, sidecars: null, endpoints: {} }

function configMap(input: Input['configMap'], right: string, hash: string): ConfigMapState {
  if (input === 'absent' || input === 'foreign') return { kind: input }
  if (input === undefined) return { kind: 'ours', uid: 'c1', digest: right, hash, generation: 3, ...NO_SERVICE }
  return { kind: 'ours', uid: 'c1', digest: 'another', hash: input.hash, generation: input.generation, ...NO_SERVICE }
}

function podOf({ ageMs = 3_600_000, report, ...pod }: NonNullable<Input['pods']>[number], hash: string): PodState {
  return {
    phase: 'Running',
    isRunning: true,
    isReady: true,
    restarts: 0,
    waiting: '',
    image: IMAGE,
    wantedImage: IMAGE,
    createdAt: NOW - ageMs,
    report: reportOf(report, hash),
    ...pod,
  }
}

function reportOf(report: InputReport | undefined, hash: string): SidecarReport {
  if (report === null) return { kind: 'answered', ambassador: null }
  if (report !== undefined && 'unasked' in report) return { kind: 'unasked' }
  if (report !== undefined && 'starting' in report) return { kind: 'starting' }
  if (report !== undefined && 'silent' in report) return { kind: 'silent', message: report.silent }
  return { kind: 'answered', ambassador: { hash, generation: 3, endpointsHash: null, refs: [], rejected: null, unready: [], ...report } }
}

/** What a reader wants to see of a decision. */
function outputOf({ configMap: write, published, status, events, againMs }: Decision): unknown {
  const { conditions = [], ...rest } = status ?? {}
  const said = conditions.map(({ type, status: value, reason, message }) => ({ [`${type}=${value}`]: `${reason}: ${message}` }))
  return {
    writes: write === null ? 'nothing' : { uid: write.uid ?? 'none: it is created', events: write.events },
    published,
    status: status === null ? 'is left as it is' : { conditions: Object.assign({}, ...said), ...rest },
    events: events.map(({ type, reason, message }) => `${type} ${reason}: ${message}`),
    againMs,
  }
}

describe('decide', () => {
  for (const { name, text } of goldenFiles('decide', '.in.yaml')) {
    const { world, hash } = worldOf(text)
    const rendered = render({ ambassador: world.ambassador, services: lookupOf(world) })
    const decision = decide(world, rendered)

    it((load(text) as Input).about, () => {
      const output = dump(outputOf(decision), { lineWidth: 140, noRefs: true })
      matchGolden(`decide/${name}.out.yaml`, output.replaceAll(hash, '$HASH'))
    })

    it(`${name}: uses only conditions and reasons that are documented, each with its generation`, () => {
      const conditions = decision.status?.conditions ?? []
      if (decision.status !== null) assert.deepEqual(conditions.map(({ type }) => type), CONDITION_TYPES)
      for (const { type, status, reason, observedGeneration, message } of conditions) {
        const own = CONDITIONS[type as keyof typeof CONDITIONS].reasons as Record<string, { status: string }>
        const all = Object.assign({}, ...Object.values(CONDITIONS).map(({ reasons }) => reasons)) as typeof own
        if (type !== 'Ready') assert.equal(own[reason]?.status, status, `${type}=${status} with reason ${reason}`)
        else assert.ok(all[reason] !== undefined, `Ready with reason ${reason}`)
        assert.equal(observedGeneration, 3)
        assert.doesNotMatch(message, /\.$/)
      }
    })

    it(`${name}: decides nothing more once it is written`, () => {
      if (decision.status === null) return
      const again = decide({ ...world, ambassador: { ...world.ambassador, status: decision.status } }, rendered)
      assert.equal(again.status, null)
      assert.deepEqual(again.events, [])
    })
  }
})
