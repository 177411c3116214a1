/** kubectl and waiting, for tests that look at a cluster the way a person does. */
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError } from '../../../operator/kube/errors.ts'
import {
  applyAll,
  ask,
  execIn,
  find,
  hasCondition,
  isRolledOut,
  type Json,
  type Result,
  targetOf,
  watchUntil,
} from './api.ts'

export { ask, type Json, type Result } from './api.ts'

/** Runs a program to its end with bounded time. Never throws for a non-zero exit: tests look at it. */
export function execute(
  command: string,
  args: readonly string[],
  options: { input?: string; timeoutMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: options.env ?? process.env, timeout: options.timeoutMs ?? 250_000 })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      resolve({ code: code ?? -1, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() })
    })
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

/** Where objects are that tests look at again and again. A start of kubectl costs a tenth of a second of CPU time, and many wait at a time. */
const COLLECTIONS: Readonly<Record<string, string>> = {
  amb: '/apis/ambassador.dev/v1alpha1/namespaces/NAMESPACE/ambassadors',
  configmap: '/api/v1/namespaces/NAMESPACE/configmaps',
  deployment: '/apis/apps/v1/namespaces/NAMESPACE/deployments',
  events: '/api/v1/namespaces/NAMESPACE/events',
  job: '/apis/batch/v1/namespaces/NAMESPACE/jobs',
  lease: '/apis/coordination.k8s.io/v1/namespaces/NAMESPACE/leases',
  mutatingwebhookconfiguration: '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
  pod: '/api/v1/namespaces/NAMESPACE/pods',
  pods: '/api/v1/namespaces/NAMESPACE/pods',
  secret: '/api/v1/namespaces/NAMESPACE/secrets',
}

/** kubectl bound to one kubeconfig and one namespace. */
export class Kubectl {
  readonly binary: string
  readonly kubeconfig: string
  readonly namespace: string

  constructor(binary: string, kubeconfig: string, namespace: string) {
    this.binary = binary
    this.kubeconfig = kubeconfig
    this.namespace = namespace
  }

  in(namespace: string): Kubectl {
    return new Kubectl(this.binary, this.kubeconfig, namespace)
  }

  /** Runs and returns everything. */
  try(args: readonly string[], options: { input?: string; timeoutMs?: number } = {}): Promise<Result> {
    return execute(this.binary, ['--kubeconfig', this.kubeconfig, '-n', this.namespace, ...args], options)
  }

  /** Runs and returns stdout; throws with kubectl's own words when it fails. */
  async run(args: readonly string[], options: { input?: string; timeoutMs?: number } = {}): Promise<string> {
    const result = await this.try(args, options)
    if (result.code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${result.stderr || result.stdout}`)
    return result.stdout
  }

  /** As `kubectl apply` does it; what it can do without starting one it does so. */
  async apply(manifest: string | readonly object[]): Promise<void> {
    if (typeof manifest === 'string') return void (await this.run(['apply', '-f', '-'], { input: manifest }))
    const left = await applyAll(this.kubeconfig, this.namespace, manifest)
    if (left.length === 0) return
    await this.run(['apply', '-f', '-'], { input: left.map((object) => JSON.stringify(object)).join('\n---\n') })
  }

  /** As kubectl shows it, without a kubectl where that is easy: a name, a selector of labels, or nothing behind the kind. */
  async get(...args: string[]): Promise<Json> {
    const [kind = '', name, selector] = args
    const collection = COLLECTIONS[kind]?.replace('NAMESPACE', this.namespace)
    if (collection === undefined || (name?.startsWith('-') && name !== '-l') || args.length > (name === '-l' ? 3 : 2))
      return JSON.parse(await this.run(['get', ...args, '-o', 'json']))
    const client = await ask(this.kubeconfig)
    const isList = name === undefined || name === '-l'
    if (!isList) return withoutManagers(await client.request<Json>({ path: `${collection}/${name}` }))
    const list = await client.request<Json>({ path: collection, query: { labelSelector: selector } })
    const itemKind = list.kind.replace(/List$/, '')
    return {
      ...list,
      items: list.items.map((item: Json) => ({
        apiVersion: list.apiVersion,
        kind: itemKind,
        ...withoutManagers(item),
      })),
    }
  }

  /** Runs a command in the container `app` of a pod or workload. */
  exec(target: string, command: readonly string[], container = 'app'): Promise<Result> {
    return execIn(this.kubeconfig, this.namespace, target, container, command)
  }

  /** The last line of the log of the container `app`; empty when there is none. */
  async lastLine(pod: string): Promise<string> {
    const client = await ask(this.kubeconfig)
    const path = `/api/v1/namespaces/${this.namespace}/pods/${pod}/log`
    const answer = await client.open({ path, query: { container: 'app', tailLines: 1 } })
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += chunk
    return text
  }

  /** Pods of a label selector that are not being deleted. */
  async pods(selector: string): Promise<Json[]> {
    const list = await this.get('pods', '-l', selector)
    return list.items.filter((pod: Json) => pod.metadata.deletionTimestamp === undefined)
  }

  /** Makes a port of a pod reachable at 127.0.0.1; returns the port there, and what ends it. */
  portForward(target: string, port: number): Promise<{ port: number; close: () => Promise<void> }> {
    const args = ['--kubeconfig', this.kubeconfig, '-n', this.namespace, 'port-forward', target, `:${port}`]
    const child = spawn(this.binary, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
    const close = async (): Promise<void> => {
      child.kill()
      await ended
    }
    return new Promise((resolve, reject) => {
      let said = ''
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding('utf8').on('data', (text: string) => {
          said += text
          const own = /Forwarding from 127\.0\.0\.1:(\d+)/.exec(said)?.[1]
          if (own !== undefined) resolve({ port: Number(own), close })
        })
      child.once('error', reject)
      child.once('close', () => reject(new Error(`kubectl port-forward ${target}: ${said}`)))
    })
  }

  /** As `kubectl rollout status deployment/NAME`. */
  rollout(target: string, timeoutMs = 240_000): Promise<void> {
    return watchUntil(this.kubeconfig, targetOf(target, this.namespace), isRolledOut, timeoutMs)
  }

  /** As `kubectl wait KIND/NAME --for=condition=TYPE`. */
  wait(target: string, condition: string, timeoutMs = 240_000): Promise<void> {
    return watchUntil(this.kubeconfig, targetOf(target, this.namespace), hasCondition(condition), timeoutMs)
  }

  /** As `kubectl delete --wait=false --ignore-not-found`. Returns the uid of what is deleted, if there was something. */
  async remove(target: string, graceSeconds?: number): Promise<string | undefined> {
    const { collection, name } = targetOf(target, this.namespace)
    const query = { gracePeriodSeconds: graceSeconds, propagationPolicy: 'Background' }
    const client = await ask(this.kubeconfig)
    try {
      const told = await client.request<Json>({ method: 'DELETE', path: `${collection}/${name}`, query })
      return told.details?.uid ?? told.metadata?.uid
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined
      throw error
    }
  }

  /** As `kubectl delete --ignore-not-found`: returns when it is gone, whatever may have its name by then. */
  async delete(target: string, graceSeconds?: number): Promise<void> {
    const uid = await this.remove(target, graceSeconds)
    const isGone = (object: Json | undefined): boolean => object === undefined || object.metadata.uid !== uid
    if (uid !== undefined) await watchUntil(this.kubeconfig, targetOf(target, this.namespace), isGone, 240_000)
  }

  async exists(target: string): Promise<boolean> {
    const { collection, name } = targetOf(target, this.namespace)
    return (await find(this.kubeconfig, `${collection}/${name}`)) !== undefined
  }

  /** Waits until there is no such object. */
  gone(target: string, timeoutMs = 240_000): Promise<void> {
    const isGone = (object: Json | undefined): boolean => object === undefined
    return watchUntil(this.kubeconfig, targetOf(target, this.namespace), isGone, timeoutMs)
  }

  /** Makes a namespace, without what an earlier run may have left in it. */
  async freshNamespace(name: string, labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.delete(`namespace/${name}`)
    await this.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }])
  }

  /** As `kubectl annotate --overwrite`; null takes one away. */
  async annotate(target: string, annotations: Readonly<Record<string, string | null>>): Promise<void> {
    await this.#patch(target, { metadata: { annotations } })
  }

  /** As `kubectl scale`. */
  async scale(target: string, replicas: number): Promise<void> {
    await this.#patch(target, { spec: { replicas } }, '/scale')
  }

  async #patch(target: string, body: object, subresource = ''): Promise<void> {
    const { collection, name } = targetOf(target, this.namespace)
    const path = `${collection}/${name}${subresource}`
    const contentType = 'application/merge-patch+json'
    await (await ask(this.kubeconfig)).request({ method: 'PATCH', path, contentType, body })
  }
}

const withoutManagers = (object: Json): Json => {
  const { managedFields: _, ...metadata } = object.metadata
  return { ...object, metadata }
}

/** One GET of the application in the container `app`: the whole answer as it came over the wire, with status and reason code. */
export async function get(
  kubectl: Kubectl,
  target: string,
  port: number,
  path = '/',
): Promise<{ status: number; reason: string; text: string }> {
  const request = `GET ${path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n`
  const { stdout } = await kubectl.exec(target, ['sh', '-c', `printf '${request}' | nc -w 15 localhost ${port}`])
  return {
    status: Number(/^HTTP\/1\.1 (\d+)/.exec(stdout)?.[1]),
    reason: /^x-ambassador-reason: (\S+)/im.exec(stdout)?.[1] ?? '',
    text: stdout,
  }
}

/** What longer looks count for: then the machine was busy, and what is looked at had no time either. */
const LOOK_MS = 1000

/**
 * Asks until the answer is neither undefined nor false; says what it last saw when the time is over. A look counts for a second at
 * most, so that a machine that stands still uses no time up; but it is over after three times the time in any case.
 */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false>,
  options: { timeoutMs?: number; everyMs?: number; seen?: () => unknown } = {},
): Promise<T> {
  const { timeoutMs = 120_000, everyMs = 250 } = options
  const started = performance.now()
  let usedMs = 0
  let failure: unknown
  for (;;) {
    const lookedAt = performance.now()
    try {
      const answer = await ask()
      if (answer !== undefined && answer !== false) return answer
      failure = undefined
    } catch (error) {
      failure = error
    }
    if (usedMs > timeoutMs || performance.now() - started > 3 * timeoutMs) {
      const seen = options.seen === undefined ? '' : `; last seen: ${JSON.stringify(options.seen())}`
      throw new Error(`${what}: not within ${timeoutMs} ms${seen}`, { cause: failure })
    }
    await sleep(everyMs)
    usedMs += Math.min(performance.now() - lookedAt, everyMs + LOOK_MS)
  }
}
