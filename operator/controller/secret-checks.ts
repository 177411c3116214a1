/** Looks up referenced Secrets and ConfigMaps in the namespaces where the operator may, so that a missing one shows before the first pod. */
import { type Log, silentLog } from '../../common/log.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import { hasStatus } from '../kube/errors.ts'
import type { Reference, References } from '../render/references.ts'
import type { CheckedRef } from './world.ts'

export interface RefCheckerOptions {
  readonly client: KubeClient
  /** Namespaces of `operator.secretChecks`. */
  readonly namespaces: ReadonlySet<string>
  readonly clock?: Clock
  readonly log?: Log
}

/** Which keys an object has; null: it does not exist. Values are never kept. */
type Keys = ReadonlySet<string> | null

/** An answer is believed this long. */
const BELIEVE_MS = 10_000
const MAX_REMEMBERED = 2000

export class RefChecker {
  readonly #options: RefCheckerOptions
  readonly #clock: Clock
  readonly #known = new Map<string, { readonly keys: Keys; readonly at: number }>()

  constructor(options: RefCheckerOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  /** Null: not in a namespace where the operator may look, or the API server did not let it. */
  async check(namespace: string, references: References, signal?: AbortSignal): Promise<CheckedRef[] | null> {
    if (!this.#options.namespaces.has(namespace)) return null
    try {
      const secrets = references.secrets.map((each) => this.#one('Secret', namespace, each, signal))
      const maps = references.configMaps.map((each) => this.#one('ConfigMap', namespace, each, signal))
      return (await Promise.all([...secrets, ...maps])).flat()
    } catch (error) {
      const log = this.#options.log ?? silentLog
      if (hasStatus(error, 403)) {
        log.warn(
          { ns: namespace, err: error },
          'not allowed to read Secrets here, add the namespace to operator.secretChecks of the chart',
        )
        return null
      }
      throw error
    }
  }

  async #one(
    kind: CheckedRef['kind'],
    namespace: string,
    reference: Reference,
    signal?: AbortSignal,
  ): Promise<CheckedRef[]> {
    const keys = await this.#keys(kind, namespace, reference.name, signal)
    return reference.keys.map((key) => ({
      kind,
      name: reference.name,
      key,
      state: keys === null ? 'ObjectMissing' : keys.has(key) ? 'Found' : 'KeyMissing',
    }))
  }

  async #keys(kind: CheckedRef['kind'], namespace: string, name: string, signal?: AbortSignal): Promise<Keys> {
    const id = `${kind}/${namespace}/${name}`
    const now = this.#clock.now()
    const known = this.#known.get(id)
    if (known !== undefined && now - known.at < BELIEVE_MS) return known.keys
    const keys = await this.#read(kind, namespace, name, signal)
    if (this.#known.size >= MAX_REMEMBERED) this.#known.clear()
    this.#known.set(id, { keys, at: now })
    return keys
  }

  async #read(kind: CheckedRef['kind'], namespace: string, name: string, signal?: AbortSignal): Promise<Keys> {
    interface Data {
      readonly data?: object
      readonly binaryData?: object
    }
    try {
      const path = `/api/v1/namespaces/${namespace}/${kind === 'Secret' ? 'secrets' : 'configmaps'}/${name}`
      const { data = {}, binaryData = {} } = await this.#options.client.request<Data>({ path, signal })
      return new Set([...Object.keys(data), ...Object.keys(binaryData)])
    } catch (error) {
      if (hasStatus(error, 404)) return null
      throw error
    }
  }
}
