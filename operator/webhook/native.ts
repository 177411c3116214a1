/** Whether a pod can have a native sidecar: an init container with restartPolicy Always, which old kubelets do not know. */
import { asList, asObject, asString, type JsonObject, objectsOf } from './json.ts'

/** What a cache of nodes keeps of each. */
export interface NodeInfo {
  readonly name: string
  /** status.nodeInfo.kubeletVersion, such as `v1.34.4`. */
  readonly kubeletVersion: string
  readonly labels: Readonly<Record<string, string>>
  readonly taints: readonly { readonly key: string; readonly value?: string; readonly effect: string }[]
}

/** The nodes of the cluster, kept up to date elsewhere. */
export interface Nodes {
  /** The same array, unchanged, until a node changes. */
  list(): readonly NodeInfo[]
}

/** First minor release whose kubelets have native sidecars switched on (1.29 beta, 1.33 general). */
const FIRST_MINOR = 29

/**
 * Whether every node on which the pod can land knows native sidecars. No node known, or none that fits (a group that is scaled
 * to zero): all nodes count; no node at all: yes, since the API servers that call us are 1.30 or newer and kubelets in reach mostly are.
 */
export function supportsNative(spec: JsonObject, nodes: Nodes): boolean {
  const all = nodes.list()
  if (areNewEnough(all)) return true
  const nodeName = asString(spec['nodeName'])
  if (nodeName !== undefined && nodeName !== '') {
    const node = all.find((each) => each.name === nodeName)
    if (node !== undefined) return isNewEnough(node)
  }
  const fitting = all.filter((node) => fits(spec, node))
  return (fitting.length > 0 ? fitting : all).every(isNewEnough)
}

/** The list is the same object until a node changes, and a large cluster is asked about for every pod. */
const known = new WeakMap<readonly NodeInfo[], boolean>()

function areNewEnough(nodes: readonly NodeInfo[]): boolean {
  let answer = known.get(nodes)
  if (answer === undefined) known.set(nodes, (answer = nodes.every(isNewEnough)))
  return answer
}

/** A version that cannot be read counts as old: the ordinary container works everywhere. */
function isNewEnough(node: NodeInfo): boolean {
  const match = /^v?(\d{1,4})\.(\d{1,4})/.exec(node.kubeletVersion)
  if (match === null) return false
  const major = Number(match[1])
  return major > 1 || (major === 1 && Number(match[2]) >= FIRST_MINOR)
}

/** Node selector, required node affinity and taints; what else the scheduler looks at does not tell kubelets apart. */
function fits(spec: JsonObject, node: NodeInfo): boolean {
  const selector = asObject(spec['nodeSelector']) ?? {}
  if (!Object.entries(selector).every(([key, value]) => labelOf(node, key) === value)) return false
  const required = asObject(
    asObject(asObject(spec['affinity'])?.['nodeAffinity'])?.['requiredDuringSchedulingIgnoredDuringExecution'],
  )
  const terms = objectsOf(required?.['nodeSelectorTerms'])
  if (terms.length > 0 && !terms.some((term) => matchesTerm(term, node))) return false
  const tolerations = objectsOf(spec['tolerations'])
  return node.taints.every(
    (taint) => taint.effect === 'PreferNoSchedule' || tolerations.some((t) => tolerates(t, taint)),
  )
}

/** Own properties alone: a label may be called `constructor`. */
function labelOf(node: NodeInfo, key: string): string | undefined {
  return Object.hasOwn(node.labels, key) ? node.labels[key] : undefined
}

function matchesTerm(term: JsonObject, node: NodeInfo): boolean {
  const fields = objectsOf(term['matchFields']).every((field) => matches(field, node.name))
  return fields && objectsOf(term['matchExpressions']).every((e) => matches(e, labelOf(node, String(e['key']))))
}

function matches(expression: JsonObject, actual: string | undefined): boolean {
  const values = asList(expression['values'])
  switch (expression['operator']) {
    case 'In':
      return actual !== undefined && values.includes(actual)
    case 'NotIn':
      return actual === undefined || !values.includes(actual)
    case 'Exists':
      return actual !== undefined
    case 'DoesNotExist':
      return actual === undefined
    case 'Gt':
      return actual !== undefined && Number(actual) > Number(values[0])
    case 'Lt':
      return actual !== undefined && Number(actual) < Number(values[0])
    default:
      return true // an operator of a later release: count the node
  }
}

function tolerates(toleration: JsonObject, taint: NodeInfo['taints'][number]): boolean {
  const { key, operator, value, effect } = toleration
  if (typeof effect === 'string' && effect !== '' && effect !== taint.effect) return false
  if (operator === 'Exists') return key === undefined || key === '' || key === taint.key
  return key === taint.key && (value ?? '') === (taint.value ?? '')
}
