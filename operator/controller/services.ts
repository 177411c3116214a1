/** Watches the Services that Ambassadors name, and their EndpointSlices: in those namespaces alone, as little of them as is needed. */
import { type Log, silentLog } from '../../common/log.ts'
import { ALLOW_FROM } from '../../common/names.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, sleep, systemClock, type Timer } from '../kube/clock.ts'
import type { KubeObject } from '../kube/objects.ts'
import { Reflector } from '../kube/reflector.ts'
import {
  type ResolvedService,
  resolveService,
  type ServiceEndpoint,
  type ServiceRef,
  type ServiceState,
  type SliceState,
  serviceKey,
} from '../render/services.ts'

export interface ServicesOptions {
  readonly client: KubeClient
  readonly clock?: Clock
  readonly log?: Log
  readonly onTrouble?: (reason: string) => void
  /** Told the key (`namespace/ambassador`) for which something changed. */
  readonly wake: (key: string) => void
}

const SERVICE_NAME = 'kubernetes.io/service-name'
const BY_SERVICE = 'service'

/** Names come one by one when an operator starts: a watch is opened for all that came within this time. */
const GATHER_MS = 50

/** Longest wait for the first look at a namespace, so that a new Ambassador is published with its endpoints at once. */
const FIRST_LOOK_MS = 3_000

/** More names than this do not go into a query: then the watch is of every slice of a Service in the namespace. */
const MAX_NAMES = 40

/** The two watches of one namespace, for certain names. */
interface Watch {
  readonly names: ReadonlySet<string>
  readonly services: Reflector<ServiceState>
  readonly slices: Reflector<SliceState>
  readonly synced: Promise<unknown>
  /** Why the last list or watch failed; empty: nothing did. */
  trouble: string
}

interface Namespace {
  current: Watch | undefined
  /** Takes over once it is synced: until then the current one, which lacks a name, goes on. */
  next: Watch | undefined
  timer: Timer | undefined
}

export class Services {
  readonly #options: ServicesOptions
  readonly #clock: Clock
  readonly #log: Log
  /** What each Ambassador names. */
  readonly #wanted = new Map<string, readonly ServiceRef[]>()
  readonly #namespaces = new Map<string, Namespace>()
  #isStopped = false

  constructor(options: ServicesOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
  }

  get reflectors(): readonly Pick<Reflector<unknown>, 'name' | 'stalenessSeconds' | 'isSynced'>[] {
    return [...this.#namespaces.values()].flatMap(({ current }) => (current ? [current.services, current.slices] : []))
  }

  /** From now on the Ambassador of this key names these. */
  want(key: string, refs: readonly ServiceRef[]): void {
    const before = this.#wanted.get(key) ?? []
    if (before.map(serviceKey).join() === refs.map(serviceKey).join()) return
    if (refs.length === 0) this.#wanted.delete(key)
    else this.#wanted.set(key, refs)
    for (const namespace of new Set([...before, ...refs].map((ref) => ref.namespace))) this.#look(namespace)
  }

  /** Resolves when everything that the Ambassador names was looked at once, or cannot be soon. */
  async known(key: string, signal?: AbortSignal): Promise<void> {
    const until = this.#clock.now() + FIRST_LOOK_MS
    for (const ref of this.#wanted.get(key) ?? []) {
      while (this.#watchOf(ref) === undefined && this.#clock.now() < until && !this.#isStopped) {
        const { next } = this.#namespaces.get(ref.namespace) ?? {}
        if (next?.trouble) break
        if (!(await sleep(this.#clock, 20, signal))) return
      }
    }
  }

  /** What a Service is now. `lastGood` is what was published before, by serviceKey(). */
  resolve(
    ref: ServiceRef,
    asker: string,
    lastGood: Readonly<Record<string, readonly ServiceEndpoint[]>>,
  ): ResolvedService {
    const last = lastGood[serviceKey(ref)] ?? []
    const watch = this.#watchOf(ref)
    if (watch === undefined) {
      const why = this.#namespaces.get(ref.namespace)?.next?.trouble || 'no answer yet'
      const message = `Services of namespace '${ref.namespace}' cannot be read (${why}): let the operator list and watch services and endpointslices`
      return { kind: 'endpoints', endpoints: last, problem: { kind: 'Unknown', message } }
    }
    return resolveService(ref, {
      asker,
      service: watch.services.store.get(`${ref.namespace}/${ref.name}`),
      slices: watch.slices.store.byIndex(BY_SERVICE, ref.name),
      lastGood: last,
    })
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    const all = [...this.#namespaces.values()]
    for (const { timer } of all) timer?.cancel()
    await Promise.all(all.flatMap(({ current, next }) => [current, next].map((watch) => watch && close(watch))))
  }

  /** The watch that knows a Service, once it has looked. */
  #watchOf({ namespace, name }: ServiceRef): Watch | undefined {
    const { current } = this.#namespaces.get(namespace) ?? {}
    return current?.names.has(name) ? current : undefined
  }

  #namesIn(namespace: string): Set<string> {
    const refs = [...this.#wanted.values()].flat()
    return new Set(refs.filter((ref) => ref.namespace === namespace).map(({ name }) => name))
  }

  #look(namespace: string): void {
    const names = this.#namesIn(namespace)
    let entry = this.#namespaces.get(namespace)
    if (names.size === 0) {
      this.#namespaces.delete(namespace)
      entry?.timer?.cancel()
      for (const watch of [entry?.current, entry?.next]) if (watch) void close(watch)
      return
    }
    if (entry === undefined)
      this.#namespaces.set(namespace, (entry = { current: undefined, next: undefined, timer: undefined }))
    // A name that nobody says any more is watched on until another is added.
    const watched = (entry.next ?? entry.current)?.names
    if (watched !== undefined && [...names].every((name) => watched.has(name))) return
    const known = entry
    entry.timer ??= this.#clock.after(GATHER_MS, () => {
      known.timer = undefined
      if (!this.#isStopped && this.#namespaces.get(namespace) === known) this.#open(namespace, known)
    })
  }

  #open(namespace: string, entry: Namespace): void {
    const names = this.#namesIn(namespace)
    if (entry.next) void close(entry.next)
    const watch: Watch = this.#watch(namespace, names)
    entry.next = watch
    watch.services.start()
    watch.slices.start()
    void watch.synced.then(() => {
      if (entry.next !== watch || this.#isStopped) return
      const old = entry.current
      entry.current = watch
      entry.next = undefined
      if (old) void close(old)
      for (const name of names) this.#wake(namespace, name)
    })
  }

  #watch(namespace: string, names: ReadonlySet<string>): Watch {
    const { client } = this.#options
    const isCurrent = (): boolean => this.#namespaces.get(namespace)?.current === watch
    const common = {
      client,
      clock: this.#clock,
      log: this.#log,
      onTrouble: (reason: string) => {
        watch.trouble = reason
        this.#options.onTrouble?.(reason)
      },
    }
    const services = new Reflector<ServiceState>({
      ...common,
      name: 'services',
      path: `/api/v1/namespaces/${namespace}/services`,
      transform: (object) => (names.has(object.metadata.name) ? projectService(object) : undefined),
      onChange: ({ before, after }) => {
        if (isCurrent()) this.#wake(namespace, (after ?? before)!.name)
      },
    })
    const slices = new Reflector<SliceState>({
      ...common,
      name: 'endpointslices',
      path: `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`,
      labelSelector: names.size > MAX_NAMES ? SERVICE_NAME : `${SERVICE_NAME} in (${[...names].sort().join(',')})`,
      transform: (object) => {
        const slice = projectSlice(object)
        return slice !== undefined && names.has(slice.service) ? slice : undefined
      },
      indices: { [BY_SERVICE]: ({ service }) => [service] },
      onChange: ({ before, after }) => {
        if (isCurrent())
          for (const name of new Set([before?.service, after?.service])) if (name) this.#wake(namespace, name)
      },
    })
    const synced = Promise.all([services.synced(), slices.synced()])
    const watch: Watch = { names, services, slices, synced, trouble: '' }
    return watch
  }

  #wake(namespace: string, name: string): void {
    for (const [key, refs] of this.#wanted) {
      if (refs.some((ref) => ref.namespace === namespace && ref.name === name)) this.#options.wake(key)
    }
  }
}

async function close({ services, slices }: Watch): Promise<void> {
  await Promise.all([services.stop(), slices.stop()])
}

interface Service {
  readonly spec?: {
    readonly type?: string
    readonly externalName?: string
    readonly ipFamilies?: readonly string[]
    readonly ports?: readonly { readonly name?: string; readonly port: number; readonly protocol?: string }[]
  }
}

export function projectService(object: KubeObject): ServiceState {
  const { metadata } = object
  const { type, externalName = '', ipFamilies = [], ports = [] } = (object as Service).spec ?? {}
  const allowed = metadata.annotations?.[ALLOW_FROM] ?? ''
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    externalName: type === 'ExternalName' ? externalName : '',
    families: ipFamilies,
    ports: ports.filter(isTcp).map(({ name = '', port }) => ({ name, port })),
    allowFrom: allowed.split(',').flatMap((each) => each.trim() || []),
  }
}

interface Slice {
  readonly addressType?: string
  readonly ports?: readonly { readonly name?: string; readonly port?: number; readonly protocol?: string }[] | null
  readonly endpoints?:
    | readonly {
        readonly addresses?: readonly string[]
        readonly zone?: string
        readonly hints?: { readonly forZones?: readonly { readonly name: string }[] | null } | null
        readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean }
      }[]
    | null
}

/** Undefined: of no Service, or of names, which kube-proxy does not serve either. */
export function projectSlice(object: KubeObject): SliceState | undefined {
  const { metadata } = object
  const { addressType = '', ports, endpoints } = object as Slice
  const service = metadata.labels?.[SERVICE_NAME]
  if (service === undefined || (addressType !== 'IPv4' && addressType !== 'IPv6')) return undefined
  return {
    namespace: metadata.namespace ?? '',
    service,
    family: addressType,
    ports:
      ports == null || ports.length === 0
        ? null
        : ports.filter(isTcp).map(({ name = '', port = null }) => ({ name, port })),
    endpoints: (endpoints ?? []).flatMap(({ addresses = [], zone = '', hints, conditions = {} }) => {
      const [ip] = addresses
      if (ip === undefined) return []
      // Absent means ready: whoever writes slices by hand need not say it.
      const isReady = conditions.ready ?? true
      const forZones = hints?.forZones?.map(({ name }) => name).sort() ?? null
      return [{ ip, isReady, isServing: conditions.serving ?? isReady, zone, forZones }]
    }),
  }
}

function isTcp({ protocol = 'TCP' }: { readonly protocol?: string | undefined }): boolean {
  return protocol === 'TCP'
}
