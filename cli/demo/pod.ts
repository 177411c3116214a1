/** Runs the sidecar of an injected pod as a kubelet would: its environment, its probes and its volumes, below a temporary directory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CONTAINER_NAME } from '../../common/names.ts'

type Data = Readonly<Record<string, string>>

/** Contents of the ConfigMaps and Secrets that the pod may mount, by name. */
export interface Objects {
  readonly configMaps: ReadonlyMap<string, Data>
  readonly secrets: ReadonlyMap<string, Data>
}

interface Volume {
  readonly name: string
  readonly configMap?: { readonly name: string }
  readonly secret?: { readonly secretName: string }
  readonly projected?: {
    readonly sources: readonly {
      readonly serviceAccountToken?: {
        readonly audience: string
        readonly expirationSeconds: number
        readonly path: string
      }
    }[]
  }
}

interface Container {
  readonly name: string
  readonly env: readonly {
    readonly name: string
    readonly value?: string
    readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } }
  }[]
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[]
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[]
  readonly startupProbe: { readonly httpGet: { readonly path: string; readonly port: string } }
}

/** What we need of an injected pod. */
export interface InjectedPod {
  readonly metadata: { readonly name?: string; readonly namespace?: string }
  readonly spec: {
    readonly initContainers?: readonly Container[]
    readonly containers: readonly Container[]
    readonly volumes: readonly Volume[]
  }
}

/** The sidecar, running. */
export class Sidecar {
  readonly container: Container
  readonly #root = mkdtempSync(join(tmpdir(), 'ambassador-demo-'))
  readonly #directories = new Map<string, string[]>()
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown[]>
  #log = ''
  #versions = 0

  /** Lays out the volumes and starts it. */
  constructor(pod: InjectedPod, objects: Objects, command: readonly string[]) {
    const { initContainers = [], containers, volumes } = pod.spec
    const container = [...initContainers, ...containers].find((each) => each.name === CONTAINER_NAME)
    if (container === undefined) throw new Error(`the pod has no container '${CONTAINER_NAME}'`)
    this.container = container
    for (const { name, mountPath } of container.volumeMounts) {
      const volume = volumes.find((each) => each.name === name)
      if (volume?.projected !== undefined) {
        this.#write(this.#inside(mountPath), standInTokens(volume.projected))
        continue
      }
      const source = volume?.configMap?.name ?? volume?.secret?.secretName
      if (volume === undefined || source === undefined) throw new Error(`the pod has no volume for the mount '${name}'`)
      const key = `${volume.secret === undefined ? 'configMap' : 'secret'}/${source}`
      const data = (volume.secret === undefined ? objects.configMaps : objects.secrets).get(source)
      this.#directories.set(key, [...(this.#directories.get(key) ?? []), this.#inside(mountPath)])
      this.#write(this.#inside(mountPath), data ?? {})
    }
    const [program = '', ...args] = command
    this.#child = spawn(program, args, { env: this.#environment(pod), stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#log += text))
    }
    this.#exit = once(this.#child, 'close')
  }

  /** Everything that it has said. */
  get log(): string {
    return this.#log
  }

  /** Waits as kubelet does, by the startup probe; milliseconds until it was passed. */
  async started(): Promise<number> {
    const { path, port } = this.container.startupProbe.httpGet
    const number = this.container.ports.find((each) => each.name === port)?.containerPort
    const startedAt = performance.now()
    while (performance.now() - startedAt < 20_000) {
      const answer = await fetch(`http://127.0.0.1:${number}${path}`).catch(() => null)
      if (answer?.ok) return performance.now() - startedAt
      if (this.#child.exitCode !== null) break
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error(`the sidecar did not start:\n${this.#log}`)
  }

  /** Changes a mounted object, as kubelet does it: one rename of `..data`. */
  swap(kind: 'configMap' | 'secret', name: string, data: Data): void {
    const directories = this.#directories.get(`${kind}/${name}`)
    if (directories === undefined) throw new Error(`the pod does not mount the ${kind} '${name}'`)
    for (const directory of directories) this.#write(directory, data)
  }

  /** SIGTERM; the exit code and how long it took. */
  async stop(): Promise<{ readonly code: number | null; readonly durationMs: number }> {
    const startedAt = performance.now()
    this.#child.kill('SIGTERM')
    const [code] = (await this.#exit) as [number | null]
    return { code, durationMs: performance.now() - startedAt }
  }

  /** Removes everything. Idempotent. */
  clean(): void {
    if (this.#child.exitCode === null) this.#child.kill('SIGKILL')
    rmSync(this.#root, { recursive: true, force: true })
  }

  /** Where a path of the container is here. */
  #inside(path: string): string {
    return join(this.#root, path)
  }

  /** The variables of the pod spec, with the paths of the container as they are here and field references resolved. */
  #environment(pod: InjectedPod): Record<string, string> {
    const env: Record<string, string> = { PATH: process.env['PATH'] ?? '' }
    for (const { name, value, valueFrom } of this.container.env) {
      const field = valueFrom?.fieldRef?.fieldPath
      if (field === 'metadata.name') env[name] = pod.metadata.name ?? ''
      else if (field === 'metadata.namespace') env[name] = pod.metadata.namespace ?? ''
      else env[name] = value?.startsWith('/') ? this.#inside(value) : (value ?? '')
    }
    return env
  }

  #write(directory: string, data: Data): void {
    mkdirSync(directory, { recursive: true })
    const version = `..${++this.#versions}`
    mkdirSync(join(directory, version))
    for (const [key, value] of Object.entries(data)) writeFileSync(join(directory, version, key), value)
    const entries = readdirSync(directory)
    const before = entries.includes('..data') ? readlinkSync(join(directory, '..data')) : null
    symlinkSync(version, join(directory, '..data_tmp'))
    renameSync(join(directory, '..data_tmp'), join(directory, '..data'))
    for (const key of Object.keys(data))
      if (!entries.includes(key)) symlinkSync(join('..data', key), join(directory, key))
    if (before !== null) rmSync(join(directory, before), { recursive: true })
  }
}

/** What stands in for the tokens of a service account, which an API server alone can sign: of the same form, signed by nobody. */
function standInTokens({ sources }: NonNullable<Volume['projected']>): Data {
  const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
  const issuedAt = Math.floor(Date.now() / 1000)
  const tokens = sources.flatMap(({ serviceAccountToken: token }) => {
    if (token === undefined) return []
    const claims = { aud: [token.audience], iat: issuedAt, exp: issuedAt + token.expirationSeconds }
    return [[token.path, `${encode({ alg: 'none' })}.${encode(claims)}.stand-in`]]
  })
  return Object.fromEntries(tokens)
}
