/** Variables by which libraries find a dependency, offered to the containers of the application and never over their own. */
import type { InjectableAmbassador } from './ambassador.ts'
import type { SidecarMode } from './container.ts'
import { asObject, asString, type Json, type JsonObject, objectsOf } from './json.ts'
import { type ContainerList, LISTS } from './status.ts'

export interface Variable {
  readonly name: string
  readonly value: string
}

/** What one container gets. */
export interface Offer {
  readonly list: ContainerList
  readonly container: string
  readonly variables: readonly Variable[]
}

const HOST = '127.0.0.1'

/** By which a container says itself where a dependency is: then the others would lead it astray. */
const GROUPS: readonly (readonly string[])[] = [
  ['PGHOST', 'PGHOSTADDR', 'PGPORT', 'PGSERVICE', 'PGSSLMODE'],
  ['REDIS_URL'],
]

/** What every variable of ours looks like. */
const OURS = new Map(
  Object.entries({
    PGHOST: /^127\.0\.0\.1$/,
    PGPORT: /^\d{1,5}$/,
    PGSSLMODE: /^disable$/,
    REDIS_URL: /^redis:\/\/127\.0\.0\.1:\d{1,5}$/,
  }),
)

/** The variables of a protocol; none for one whose libraries know none. */
export function variablesOf(protocol: string, port: number): Variable[] {
  if (protocol === 'Redis') return [{ name: 'REDIS_URL', value: `redis://${HOST}:${port}` }]
  if (protocol !== 'PostgreSQL') return []
  return [
    { name: 'PGHOST', value: HOST },
    { name: 'PGPORT', value: `${port}` },
    // The sidecar encrypts; libpq would ask for TLS first.
    { name: 'PGSSLMODE', value: 'disable' },
  ]
}

/** Whether an entry of `env` may be one that we put there. */
export function isOffered(entry: Json | undefined): boolean {
  const { name, value } = asObject(entry) ?? {}
  return typeof name === 'string' && OURS.get(name)?.test(asString(value) ?? '') === true
}

/** What each container of a pod without a sidecar gets, and what a person should know. Of two Ambassadors that offer the same, the first does. */
export function offersOf(
  spec: JsonObject,
  ambassadors: readonly InjectableAmbassador[],
  mode: SidecarMode,
): { readonly offers: readonly Offer[]; readonly warnings: readonly string[] } {
  const offered = new Map<string, { readonly variable: Variable; readonly by: string }>()
  const warnings: string[] = []
  for (const { name: by, env } of ambassadors) {
    const other = env.map(({ name }) => offered.get(name)?.by).find((each) => each !== undefined)
    if (other !== undefined) {
      warnings.push(`Ambassador "${by}": listen.env offers nothing, "${other}" offers ${env[0]?.name} already`)
      continue
    }
    for (const variable of env) offered.set(variable.name, { variable, by })
  }
  if (offered.size === 0) return { offers: [], warnings }
  const offers: Offer[] = []
  // Without native sidecars, an init container ends before the sidecar begins.
  for (const list of mode === 'Native' ? LISTS : (['containers'] as const)) {
    for (const container of objectsOf(spec[list])) {
      const name = asString(container['name']) ?? ''
      // What envFrom brings is not known here, and env would go over it.
      if (objectsOf(container['envFrom']).length > 0) {
        warnings.push(
          `container "${name}" has envFrom, which may bring variables of its own: listen.env offers it none`,
        )
        continue
      }
      const own = new Set(objectsOf(container['env']).map((each) => each['name']))
      const taken = new Set(GROUPS.filter((group) => group.some((each) => own.has(each))).flat())
      const variables = [...offered.values()].map(({ variable }) => variable).filter((each) => !taken.has(each.name))
      if (variables.length > 0) offers.push({ list, container: name, variables })
    }
  }
  return { offers, warnings }
}
