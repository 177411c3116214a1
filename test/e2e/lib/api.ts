/** What kubectl does, asked of an API server on connections that are kept: a start of kubectl costs a tenth of a second of CPU time. */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { load } from 'js-yaml'
import { createClient, type KubeClient } from '../../../operator/kube/client.ts'
import { type Connection, connect } from '../../../operator/kube/connection.ts'
import { ApiError } from '../../../operator/kube/errors.ts'

// biome-ignore lint/suspicious/noExplicitAny: objects of the API server are read as they come
export type Json = any

export interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

interface Api {
  readonly client: KubeClient
  readonly connection: Connection
}

/** By kubeconfig. Their resting connections keep no process alive. */
const known = new Map<string, Promise<Api>>()

const apiOf = (kubeconfig: string): Promise<Api> => {
  const found = known.get(kubeconfig)
  if (found !== undefined) return found
  const made = connectTo(kubeconfig).then((connection) => ({
    connection,
    client: createClient(connection, { timeoutMs: 60_000 }),
  }))
  known.set(kubeconfig, made)
  return made
}

/** Asks the API server of a kubeconfig, on connections that are kept. */
export const ask = async (kubeconfig: string): Promise<KubeClient> => (await apiOf(kubeconfig)).client

/** As operator/kube/connection.ts does it; but that loads a library, for half a second, which a kubeconfig with one certificate in it does not need. */
export const connectTo = async (kubeconfig: string): Promise<Connection> => {
  const { clusters, users } = load(await readFile(kubeconfig, 'utf8')) as Json
  const { server, 'certificate-authority-data': ca, ...otherOfCluster } = clusters[0].cluster
  const { 'client-certificate-data': cert, 'client-key-data': key, ...otherOfUser } = users[0].user
  const isPlain = clusters.length === 1 && users.length === 1 && [ca, cert, key].every((each) => each !== undefined)
  if (!isPlain || Object.keys({ ...otherOfCluster, ...otherOfUser }).length > 0) return connect({ kubeconfig })
  const decode = (base64: string): Buffer => Buffer.from(base64, 'base64')
  const identity = { headers: {}, tls: { ca: decode(ca), cert: decode(cert), key: decode(key) } }
  return { server: new URL(server), namespace: 'default', identity: async () => identity }
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

/**
 * Makes objects in their order, exactly as `kubectl apply` does it with those that do not exist. Returns those that it leaves to kubectl:
 * what exists is merged, and a kind may be unknown here.
 */
export const createAll = async (kubeconfig: string, namespace: string, objects: readonly Json[]): Promise<Json[]> => {
  const client = await ask(kubeconfig)
  const left: Json[] = []
  for (const object of objects) {
    const path = collectionOf(object.apiVersion, object.kind, object.metadata.namespace ?? namespace)
    const { annotations, ...metadata } = object.metadata
    const own = path?.includes('/namespaces/') ? { namespace } : {}
    const applied = JSON.stringify({ ...object, metadata: { annotations: {}, ...own, ...object.metadata } })
    const body = { ...object, metadata: { ...metadata, annotations: { ...annotations, [APPLIED]: `${applied}\n` } } }
    const query = { fieldManager: 'kubectl-client-side-apply', fieldValidation: 'Strict' }
    // What is left before it must be there first.
    const isMade = left.length === 0 && path !== undefined && (await isCreated(client, path, query, body))
    if (!isMade) left.push(object)
    else if (object.kind === 'Namespace') await isFurnished(kubeconfig, object.metadata.name)
  }
  return left
}

/** Waits for what controllers put into a new namespace: no pod is admitted without the one and none starts without the other. */
const isFurnished = async (kubeconfig: string, namespace: string): Promise<void> => {
  const isThere = (object: Json | undefined): boolean => object !== undefined
  for (const text of ['serviceaccount/default', 'configmap/kube-root-ca.crt'])
    await watchUntil(kubeconfig, targetOf(text, namespace), isThere, 120_000)
}

const isCreated = async (
  client: KubeClient,
  path: string,
  query: Readonly<Record<string, string>>,
  body: object,
): Promise<boolean> => {
  try {
    await client.request({ method: 'POST', path, query, body })
    return true
  } catch (error) {
    if (error instanceof ApiError && error.reason === 'AlreadyExists') return false
    throw error
  }
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
      if (!(error instanceof ApiError)) throw error
      if (error.status === 404) last = undefined
      else if (error.status !== 0) throw error
      else {
        // It is being restarted.
        await sleep(250)
        continue
      }
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
      const events = await client.open({ path: collection, query, signal })
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
      if (!isOfConnection(error)) throw error
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

const isOfConnection = (error: unknown): boolean =>
  error instanceof ApiError ? error.status === 0 : ['ECONNRESET', 'ABORT_ERR'].includes(String((error as Json)?.code))

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
