/** What kubectl does, asked of an API server on connections that are kept: a start of kubectl costs a tenth of a second of CPU time. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { KubeClient } from '../../../operator/kube/client.ts'
import { ApiError } from '../../../operator/kube/errors.ts'
import { apiOf, ask, type Json } from '../../cluster/client.ts'

export { ask, find, type Json } from '../../cluster/client.ts'

export interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Names in paths of the kinds that tests make. */
const PLURALS: Readonly<Record<string, string>> = {
  Ambassador: 'ambassadors',
  ClusterRole: 'clusterroles',
  ClusterRoleBinding: 'clusterrolebindings',
  ConfigMap: 'configmaps',
  CronJob: 'cronjobs',
  CustomResourceDefinition: 'customresourcedefinitions',
  DaemonSet: 'daemonsets',
  Deployment: 'deployments',
  EndpointSlice: 'endpointslices',
  Job: 'jobs',
  Namespace: 'namespaces',
  Node: 'nodes',
  Pod: 'pods',
  PodDisruptionBudget: 'poddisruptionbudgets',
  ReplicaSet: 'replicasets',
  Role: 'roles',
  RoleBinding: 'rolebindings',
  Secret: 'secrets',
  Service: 'services',
  ServiceAccount: 'serviceaccounts',
  StatefulSet: 'statefulsets',
}

const API_VERSIONS: Readonly<Record<string, string>> = {
  Ambassador: 'ambassador.dev/v1alpha1',
  CronJob: 'batch/v1',
  CustomResourceDefinition: 'apiextensions.k8s.io/v1',
  DaemonSet: 'apps/v1',
  Deployment: 'apps/v1',
  Job: 'batch/v1',
  ReplicaSet: 'apps/v1',
  StatefulSet: 'apps/v1',
}

const SHORT: Readonly<Record<string, string>> = {
  amb: 'Ambassador',
  crd: 'CustomResourceDefinition',
  deploy: 'Deployment',
}

/** `/apis/apps/v1/namespaces/shop/deployments`; undefined for a kind that is not known here. */
const collectionOf = (apiVersion: string, kind: string, namespace: string): string | undefined => {
  const plural = PLURALS[kind]
  if (plural === undefined) return undefined
  const group = apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`
  const isOfCluster = kind.startsWith('Cluster') || ['CustomResourceDefinition', 'Namespace', 'Node'].includes(kind)
  return `${group}${isOfCluster ? '' : `/namespaces/${namespace}`}/${plural}`
}

/** One object, as `deployment/orders` or `amb/orders` names it. */
export interface Target {
  readonly collection: string
  readonly name: string
}

/** @throws {Error} for a kind that is not known here */
export const targetOf = (text: string, namespace: string): Target => {
  const [word = '', name = ''] = text.split('/')
  const kind = SHORT[word] ?? Object.keys(PLURALS).find((each) => each.toLowerCase() === word) ?? word
  const collection = collectionOf(API_VERSIONS[kind] ?? 'v1', kind, namespace)
  if (collection === undefined || name === '') throw new Error(`'${text}': names nothing, use KIND/NAME`)
  return { collection, name }
}

/** Which kubectl wrote an object, and what it compares the next one with. */
const APPLIED = 'kubectl.kubernetes.io/last-applied-configuration'

/** Kinds whose lists are replaced whole, so that a merge of JSON is all that kubectl does. */
const MERGED = ['Ambassador', 'ConfigMap', 'EndpointSlice', 'Secret']

/**
 * Makes and changes objects in their order, as `kubectl apply` does it. Returns those that it leaves to kubectl: what exists and has
 * lists of named things, or is of a kind that is unknown here, and all behind it.
 */
export const applyAll = async (kubeconfig: string, namespace: string, objects: readonly Json[]): Promise<Json[]> => {
  const client = await ask(kubeconfig)
  const left: Json[] = []
  for (const object of objects) {
    const path = collectionOf(object.apiVersion, object.kind, object.metadata.namespace ?? namespace)
    // What is left before it must be there first.
    if (left.length > 0 || path === undefined) left.push(object)
    else if (await isCreated(client, path, withApplied(object, path, namespace))) {
      if (object.kind === 'Namespace') await isFurnished(kubeconfig, object.metadata.name)
    } else if (!MERGED.includes(object.kind)) left.push(object)
    else await merge(client, `${path}/${object.metadata.name}`, withApplied(object, path, namespace))
  }
  return left
}

/** Waits for what controllers put into a new namespace: no pod is admitted without the one and none starts without the other. */
const isFurnished = async (kubeconfig: string, namespace: string): Promise<void> => {
  const isThere = (object: Json | undefined): boolean => object !== undefined
  for (const text of ['serviceaccount/default', 'configmap/kube-root-ca.crt'])
    await watchUntil(kubeconfig, targetOf(text, namespace), isThere, 120_000)
}

const withApplied = (object: Json, path: string, namespace: string): Json => {
  const { annotations, ...metadata } = object.metadata
  const own = path.includes('/namespaces/') ? { namespace } : {}
  const applied = JSON.stringify({ ...object, metadata: { annotations: {}, ...own, ...object.metadata } })
  return { ...object, metadata: { ...metadata, annotations: { ...annotations, [APPLIED]: `${applied}\n` } } }
}

const QUERY = { fieldManager: 'kubectl-client-side-apply', fieldValidation: 'Strict' }

const isCreated = async (client: KubeClient, path: string, body: object): Promise<boolean> => {
  try {
    await client.request({ method: 'POST', path, query: QUERY, body })
    return true
  } catch (error) {
    if (error instanceof ApiError && error.reason === 'AlreadyExists') return false
    throw error
  }
}

/** What was applied before and is not applied now goes; what others have set stays. */
const merge = async (client: KubeClient, path: string, object: Json): Promise<void> => {
  const { metadata } = await client.request<Json>({ path })
  const before = JSON.parse(metadata.annotations?.[APPLIED] ?? '{}')
  const body = mergePatch(before, object)
  await client.request({ method: 'PATCH', path, query: QUERY, body, contentType: 'application/merge-patch+json' })
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Everything of the new one, and null for what only the old one has (RFC 7396). */
const mergePatch = (before: unknown, now: unknown): unknown => {
  if (!isObject(before) || !isObject(now)) return now
  const gone = Object.keys(before).filter((key) => !(key in now))
  return Object.fromEntries([
    ...gone.map((key) => [key, null]),
    ...Object.entries(now).map(([key, value]) => [key, mergePatch(before[key], value)]),
  ])
}

/** Waits until an object is as it should be: looks once, and then hears of each change. `isDone` throws when it will never be. */
export const watchUntil = async (
  kubeconfig: string,
  { collection, name }: Target,
  isDone: (object: Json | undefined) => boolean,
  timeoutMs: number,
): Promise<void> => {
  const client = await ask(kubeconfig)
  const signal = AbortSignal.timeout(timeoutMs)
  let last: Json
  while (!signal.aborted) {
    try {
      last = await client.request<Json>({ path: `${collection}/${name}`, signal })
    } catch (error) {
      if (!(error instanceof ApiError && (error.status === 404 || isPassing(error)))) throw error
      if (error.status !== 404) {
        await sleep(250)
        continue
      }
      last = undefined
    }
    if (isDone(last)) return
    // What does not exist has no version to begin with.
    if (last === undefined) {
      await sleep(100)
      continue
    }
    const { resourceVersion } = last.metadata
    const query = { watch: true, fieldSelector: `metadata.name=${name}`, resourceVersion, timeoutSeconds: 300 }
    try {
      const events = (await client.open({ path: collection, query, signal })).on('error', () => {})
      try {
        for await (const line of linesOf(events)) {
          const { type, object } = JSON.parse(line)
          if (type === 'ERROR') break // the version is too old
          last = type === 'DELETED' ? undefined : object
          if (isDone(last)) return
        }
      } finally {
        events.destroy()
      }
    } catch (error) {
      if (!isPassing(error)) throw error
      await sleep(250)
    }
  }
  throw new Error(
    `${collection}/${name}: is not as it should be within ${timeoutMs} ms; last seen: ${JSON.stringify(last?.status)}`,
  )
}

/** Not by readline, which leaves errors of what it reads to nobody. */
async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = ''
  const decoder = new TextDecoder()
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
}

/** An API server that is restarted, or has too much to do, or the end of the time. */
const isPassing = (error: unknown): boolean =>
  error instanceof ApiError
    ? error.status === 0 || error.status === 429 || error.status >= 500
    : ['ECONNRESET', 'ABORT_ERR'].includes(String((error as Json)?.code))

/** What `kubectl rollout status` waits for. @throws {Error} when the Deployment says that it makes no progress */
export const isRolledOut = (object: Json | undefined): boolean => {
  if (object === undefined) return false
  const { spec, status = {}, metadata } = object
  if (!(status.observedGeneration >= metadata.generation)) return false
  const progress = status.conditions?.find(({ type }: Json) => type === 'Progressing')
  if (progress?.reason === 'ProgressDeadlineExceeded')
    throw new Error(`deployment '${metadata.name}': ${progress.message}`)
  const { replicas = 0, updatedReplicas = 0, availableReplicas = 0 } = status
  return updatedReplicas >= (spec.replicas ?? 1) && replicas <= updatedReplicas && availableReplicas >= updatedReplicas
}

/** What `kubectl wait --for=condition=TYPE` waits for: a condition that is about the newest generation. */
export const hasCondition =
  (wanted: string) =>
  (object: Json | undefined): boolean => {
    const found = object?.status?.conditions?.find(({ type }: Json) => type === wanted)
    const observed = found?.observedGeneration ?? object?.status?.observedGeneration
    return found?.status === 'True' && (observed === undefined || observed >= object.metadata.generation)
  }

/** The pod that `kubectl exec` takes of a workload: one that is ready, if there is one. */
export const podOf = async (kubeconfig: string, text: string, namespace: string): Promise<string> => {
  const target = targetOf(text.includes('/') ? text : `pod/${text}`, namespace)
  if (target.collection.endsWith('/pods')) return target.name
  const client = await ask(kubeconfig)
  const { spec } = await client.request<Json>({ path: `${target.collection}/${target.name}` })
  const labels = Object.entries(spec.selector.matchLabels).map(([key, value]) => `${key}=${value}`)
  const path = `/api/v1/namespaces/${namespace}/pods`
  const { items } = await client.request<Json>({ path, query: { labelSelector: labels.join(',') } })
  const isReady = hasCondition('Ready')
  const rank = (pod: Json): number =>
    (isReady(pod) ? 0 : 1) + (pod.status.phase === 'Running' ? 0 : 2) + (pod.metadata.deletionTimestamp ? 4 : 0)
  const [first] = items.sort((a: Json, b: Json) => rank(a) - rank(b))
  if (first === undefined) throw new Error(`'${text}': has no pod`)
  return first.metadata.name
}

/** Bytes of the channels of Kubernetes' sub-protocol v5. */
const STDOUT = 1
const STDERR = 2
const STATUS = 3

/** Runs a command in a container. Never throws for one that fails, or cannot be started: tests look at it. */
export const execIn = async (
  kubeconfig: string,
  namespace: string,
  target: string,
  container: string,
  command: readonly string[],
  timeoutMs = 250_000,
): Promise<Result> => {
  const [{ WebSocket }, { connection }] = await Promise.all([import('ws'), apiOf(kubeconfig)])
  const { headers, tls } = await connection.identity()
  const failed = (error: unknown): Result => ({ code: 1, stdout: '', stderr: `error: ${String(error)}` })
  let pod: string
  try {
    pod = await podOf(kubeconfig, target, namespace)
  } catch (error) {
    return failed(error)
  }
  const path = `/api/v1/namespaces/${namespace}/pods/${pod}/exec`
  const query = new URLSearchParams({ container, stdout: 'true', stderr: 'true' })
  for (const word of command) query.append('command', word)
  const url = `${String(connection.server).replace(/^http/, 'ws').replace(/\/$/, '')}${path}?${query}`
  return new Promise((resolve) => {
    const socket = new WebSocket(url, 'v5.channel.k8s.io', { ...tls, headers, perMessageDeflate: false })
    const timer = setTimeout(() => socket.terminate(), timeoutMs)
    const said: Record<number, Buffer[]> = { [STDOUT]: [], [STDERR]: [], [STATUS]: [] }
    const text = (channel: number): string => Buffer.concat(said[channel] ?? []).toString()
    let problem: string | undefined
    socket.on('message', (data: Buffer) => said[data[0] ?? 0]?.push(data.subarray(1)))
    socket.on('unexpected-response', (_request, response) => {
      problem = `${response.statusCode}`
      response.setEncoding('utf8').on('data', (chunk: string) => (problem += ` ${chunk}`))
      response.on('close', () => resolve(failed(problem)))
    })
    socket.on('error', (error) => (problem ??= error.message))
    socket.on('close', () => {
      clearTimeout(timer)
      const status = text(STATUS) === '' ? undefined : (JSON.parse(text(STATUS)) as Json)
      const exit = status?.details?.causes?.find(({ reason }: Json) => reason === 'ExitCode')?.message
      const code = status?.status === 'Success' ? 0 : Number(exit ?? 1)
      const why = code === 0 ? '' : (status?.message ?? `error: ${problem ?? 'the connection ended early'}`)
      resolve({ code, stdout: text(STDOUT), stderr: `${text(STDERR)}${why}` })
    })
  })
}
