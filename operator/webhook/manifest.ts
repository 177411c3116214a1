/** The same decisions for objects in files: what the webhook would make of a pod or of the pods of a workload, without a cluster. */
import { Annotation } from '../../common/names.ts'
import { configMapName } from '../../common/object-names.ts'
import type { Ambassador } from '../api/ambassador.ts'
import { checkObject } from '../api/check.ts'
import { problemText } from '../render/problems.ts'
import { render } from '../render/render.ts'
import { type InjectableAmbassador, injectable } from './ambassador.ts'
import { annotationsOf, parseInject, requestOf } from './inject-annotation.ts'
import { asString, type JsonObject } from './json.ts'
import type { Nodes } from './native.ts'
import { type InjectionPlan, plan } from './plan.ts'
import { applyPlan } from './pod.ts'
import { type Denial, type Skip, skip } from './reasons.ts'
import type { InjectorSettings } from './settings.ts'
import { misplacedAnnotations } from './settings-annotations.ts'
import { uninjectPod } from './uninject.ts'
import { copyAnnotation, removeCopy, templateOf, withTemplate } from './workload.ts'

export interface ManifestOptions {
  /** Of objects; what an object's own metadata says is the caller's affair. */
  readonly namespace: string
  readonly ambassadors: ReadonlyMap<string, InjectableAmbassador>
  readonly settings: InjectorSettings
  /** Default: none known, so a native sidecar unless an annotation says otherwise. */
  readonly nodes?: Nodes
}

export interface Injected {
  readonly kind: 'injected'
  readonly object: JsonObject
  readonly warnings: readonly string[]
}

/** Puts sidecars into a pod, or into the pod template of a workload, whose own annotation is copied into it first. */
export function injectObject(object: JsonObject, options: ManifestOptions): Injected | Skip | Denial {
  if (asString(object['kind']) === 'Pod') return injectPod(object, options)
  // An API server takes no such annotation; passing over a `false` without quotes would inject what opted out.
  const own = annotationsOf(object)?.[Annotation.inject] ?? null
  if (own !== null && typeof own !== 'string' && templateOf(object) !== undefined) {
    const asked = parseInject(own)
    if (asked.kind !== 'request') return asked
  }
  const { workload, warnings } = copyAnnotation(object)
  const template = templateOf(workload)
  if (template === undefined) return skip('NotOurKind')
  const injected = injectPod(template, options)
  if (injected.kind !== 'injected') return injected
  return {
    kind: 'injected',
    object: withTemplate(workload, injected.object),
    warnings: [...warnings, ...misplacedAnnotations(object, asString(object['kind']) ?? ''), ...injected.warnings],
  }
}

/** Takes our sidecars, and copies of annotations, out of a pod or of a workload. The same object when there is nothing of ours. */
export function uninjectObject(object: JsonObject): JsonObject {
  if (asString(object['kind']) === 'Pod') return uninjectPod(object)
  const template = templateOf(object)
  if (template === undefined) return object
  const bare = uninjectPod(template)
  return removeCopy(bare === template ? object : withTemplate(object, bare))
}

/** An Ambassador of a file as the webhook would know it once the operator has published it; with its fault when it cannot. */
export function publishedFrom(ambassador: Ambassador): InjectableAmbassador {
  const { name } = ambassador.metadata
  const [broken] = checkObject(ambassador)
  // What is no Ambassador cannot be rendered.
  const { config, problems } = broken === undefined ? render({ ambassador }) : { config: null, problems: [] }
  if (config === null) {
    const fault = broken ? `${broken.field}: ${broken.message}` : problems.map(problemText)[0]
    const nothing = {
      port: 0,
      hostnames: [],
      env: [],
      secrets: [],
      configMaps: [],
      tokens: [],
      sockets: [],
      listenSocket: null,
    }
    return { ...nothing, config: null, isDeleting: false, name, refusal: `Invalid: ${fault}` }
  }
  const known = injectable({ ...ambassador, status: undefined })
  return { ...known, config: { name: configMapName(name), hash: config.hash } }
}

function injectPod(pod: JsonObject, options: ManifestOptions): Injected | Skip | Denial {
  const bare = uninjectPod(pod)
  const asked = requestOf(bare)
  if (asked.kind !== 'request') return asked
  const planned: InjectionPlan | Skip | Denial = plan({
    pod: bare,
    namespace: options.namespace,
    names: asked.names,
    find: (name) => options.ambassadors.get(name),
    known: () => [...options.ambassadors.keys()],
    settings: options.settings,
    nodes: options.nodes ?? { list: () => [] },
  })
  if (planned.kind !== 'plan') return planned
  return { kind: 'injected', object: applyPlan(pod, planned), warnings: planned.warnings }
}
