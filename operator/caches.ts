/** The two caches that every replica keeps, because the webhook answers from them: Ambassadors and nodes. */
import type { Log } from '../common/log.ts'
import { GROUP, PLURAL, VERSION } from '../common/names.ts'
import type { Ambassador } from './api/ambassador.ts'
import type { KubeClient } from './kube/client.ts'
import type { Clock } from './kube/clock.ts'
import { hasStatus } from './kube/errors.ts'
import type { KubeObject } from './kube/objects.ts'
import { Reflector } from './kube/reflector.ts'
import type { Change } from './kube/store.ts'
import { type InjectableAmbassador, injectable } from './webhook/ambassador.ts'
import type { AmbassadorSource } from './webhook/lookup.ts'
import type { NodeInfo, Nodes } from './webhook/native.ts'

export interface CacheOptions {
  readonly client: KubeClient
  readonly clock: Clock
  readonly log: Log
  readonly onTrouble: (resource: string, reason: string) => void
}

type Listener = (change: Change<Ambassador>) => void

const AMBASSADORS = `/apis/${GROUP}/${VERSION}/${PLURAL}`
const BY_NAMESPACE = 'namespace'

export class Caches {
  readonly ambassadors: Reflector<Ambassador>
  readonly nodes: Reflector<NodeInfo>
  readonly #client: KubeClient
  readonly #listeners = new Set<Listener>()
  #nodeList: readonly NodeInfo[] | undefined

  constructor({ client, clock, log, onTrouble }: CacheOptions) {
    this.#client = client
    this.ambassadors = new Reflector<Ambassador>({
      name: PLURAL,
      client,
      clock,
      log,
      path: AMBASSADORS,
      transform: projectAmbassador,
      indices: { [BY_NAMESPACE]: ({ metadata }) => [metadata.namespace ?? ''] },
      onTrouble: (reason) => onTrouble(PLURAL, reason),
      onChange: (change) => {
        for (const listener of this.#listeners) listener(change)
      },
    })
    this.nodes = new Reflector<NodeInfo>({
      name: 'nodes',
      client,
      clock,
      log,
      path: '/api/v1/nodes',
      transform: projectNode,
      onTrouble: (reason) => onTrouble('nodes', reason),
      onChange: () => {
        this.#nodeList = undefined
      },
    })
  }

  get reflectors(): readonly { readonly name: string; stalenessSeconds(): number; readonly isSynced: boolean }[] {
    return [this.ambassadors, this.nodes]
  }

  get isSynced(): boolean {
    return this.reflectors.every((reflector) => reflector.isSynced)
  }

  start(): void {
    this.ambassadors.start()
    this.nodes.start()
  }

  async stop(): Promise<void> {
    await Promise.all([this.ambassadors.stop(), this.nodes.stop()])
  }

  /** Tells each change of an Ambassador until the function that is returned is called. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** What the webhook asks for pods. */
  readonly source: AmbassadorSource = {
    cached: (namespace, name) => {
      const ambassador = this.ambassadors.store.get(`${namespace}/${name}`)
      return ambassador === undefined ? undefined : projected(ambassador)
    },
    fetch: async (namespace, name, signal) => {
      try {
        const path = `/apis/${GROUP}/${VERSION}/namespaces/${namespace}/${PLURAL}/${encodeURIComponent(name)}`
        return injectable((await this.#client.request<KubeObject>({ path, signal })) as unknown as Ambassador)
      } catch (error) {
        if (hasStatus(error, 404)) return undefined
        throw error
      }
    },
    names: (namespace) => this.ambassadors.store.byIndex(BY_NAMESPACE, namespace).map(({ metadata }) => metadata.name),
  }

  /** The list is asked for with each pod and changes with a node, so it is made once per change. */
  readonly nodeList: Nodes = { list: () => (this.#nodeList ??= [...this.nodes.store.values()]) }
}

/** Without the record of who wrote which field, which is as large as the rest. */
function projectAmbassador(object: KubeObject): Ambassador {
  const { managedFields: _, ...metadata } = object.metadata
  return { ...(object as unknown as Ambassador), metadata }
}

/** Objects in the cache never change, so what is derived from one is derived once. */
const derived = new WeakMap<Ambassador, InjectableAmbassador>()

function projected(ambassador: Ambassador): InjectableAmbassador {
  let known = derived.get(ambassador)
  if (known === undefined) derived.set(ambassador, (known = injectable(ambassador)))
  return known
}

interface Node {
  readonly spec?: {
    readonly taints?: readonly { readonly key: string; readonly value?: string; readonly effect: string }[]
  }
  readonly status?: { readonly nodeInfo?: { readonly kubeletVersion?: string } }
}

function projectNode(object: KubeObject): NodeInfo {
  const { metadata } = object
  const { spec, status } = object as Node
  return {
    name: metadata.name,
    kubeletVersion: status?.nodeInfo?.kubeletVersion ?? '',
    labels: metadata.labels ?? {},
    taints: (spec?.taints ?? []).map(({ key, value, effect }) => ({
      key,
      effect,
      ...(value === undefined ? {} : { value }),
    })),
  }
}
