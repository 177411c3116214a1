/** The upstream that a request names in a header field, within the list of hosts that are allowed: never an open proxy. */
import { isIP } from 'node:net'
import { HostList } from '../../../common/host-list.ts'
import type { Cluster } from '../../upstream/cluster.ts'
import type { HostClusters } from '../../upstream/host-clusters.ts'
import { FieldChanges } from './field-changes.ts'
import type { HeadParser } from './parser.ts'
import type { Refusal } from './respond.ts'
import type { HttpTarget } from './snapshot.ts'
import { isWord, nameBytes } from './tables.ts'

export interface NamedHost {
  /** In lower case, without a dot at the end; an IPv6 address in its usual form, without brackets. */
  readonly host: string
  readonly port: number
}

/** Labels of letters, digits, dashes and underscores; a name of other scripts is written as DNS has it (`xn--`). */
const NAME = /^([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.?$/

/** Reads `host`, `host:port`, `[address]` or `[address]:port` and nothing else: no scheme, user, path or list. Null: it is none. */
export function readNamedHost(text: string, defaultPort: number): NamedHost | null {
  const [, bracketed, plain = '', digits] = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+))(?::([1-9]\d{0,4}))?$/.exec(text) ?? []
  const port = digits === undefined ? defaultPort : Number(digits)
  if (port > 65535) return null
  if (bracketed !== undefined) {
    if (isIP(bracketed) !== 6) return null
    const host = new URL(`http://[${bracketed}]`).hostname.slice(1, -1)
    // An IPv4 address in the clothes of IPv6 would pass a list that has the range of one of them only.
    return host.startsWith('::ffff:') ? null : { host, port }
  }
  if (isIP(plain) === 4) return { host: plain, port }
  const host = plain.toLowerCase().replace(/\.$/, '')
  // What ends in a number is an address in a form that some take for another one.
  if (plain.length > 254 || !NAME.test(plain.toLowerCase()) || /(^|\.)(\d+|0x[0-9a-f]*)$/.test(host)) return null
  return { host, port }
}

export class HeaderHosts {
  /** Why the last target() has none. */
  refusal: Refusal | null = null
  readonly #hosts: HostClusters
  readonly #name: string
  readonly #bytes: Uint8Array
  readonly #list: HostList
  readonly #defaultPort: number
  /** The targets of requests by host, for each target that a route or the lack of one gives. */
  readonly #targets = new WeakMap<HttpTarget, WeakMap<Cluster, HttpTarget>>()

  constructor(cluster: Cluster, hosts: HostClusters) {
    const { discovery } = cluster.config
    if (discovery.kind !== 'fromHeader') throw new Error(`cluster '${cluster.name}' is not found by a header`)
    this.#hosts = hosts
    this.#name = discovery.name
    this.#bytes = nameBytes(discovery.name.toLowerCase())
    this.#list = new HostList(discovery.allowed)
    this.#defaultPort = cluster.config.tls === null ? 80 : 443
  }

  /** The target with the host that the request names; `base` as it is, with `refusal` set, when it may not have it. */
  target(base: HttpTarget, head: HeadParser): HttpTarget {
    this.refusal = null
    let value: string | null = null
    for (let i = 0; i < head.count; i++) {
      if (!isWord(head.bytes, head.nameStart(i), head.nameEnd(i), this.#bytes)) continue
      if (value !== null) return this.#refuse(base, 'bad_request', `header ${this.#name} stands twice, send it once`)
      value = head.bytes.toString('latin1', head.valueStart(i), head.valueEnd(i))
    }
    if (value === null || value === '') {
      return this.#refuse(base, 'no_route', `no header says where to: send ${this.#name}: host or host:port`)
    }
    const named = readNamedHost(value, this.#defaultPort)
    if (named === null) {
      return this.#refuse(
        base,
        'bad_request',
        `header ${this.#name} is not a host, send host, host:port or [address]:port`,
      )
    }
    const { host, port } = named
    if (!this.#list.allows(host, port)) {
      const where = `host '${host}', port ${port}`
      return this.#refuse(base, 'no_route', `${where}, is not in fromHeader.allowed: add it there, or name another one`)
    }
    const cluster = this.#hosts.of(host, port)
    if (cluster === null) return this.#refuse(base, 'queue_full', 'requests to too many hosts are under way')
    return this.#derived(base, cluster)
  }

  #refuse(base: HttpTarget, reason: Refusal['reason'], detail: string): HttpTarget {
    this.refusal = { reason, detail }
    return base
  }

  #derived(base: HttpTarget, cluster: Cluster): HttpTarget {
    let targets = this.#targets.get(base)
    if (targets === undefined) {
      targets = new WeakMap()
      this.#targets.set(base, targets)
    }
    const known = targets.get(cluster)
    if (known !== undefined) return known
    const { upstream, retry, timeouts, rateLimit, route } = base
    const made: HttpTarget = {
      upstream: { ...upstream, cluster, hosts: null },
      retry,
      timeouts,
      rateLimit,
      route: {
        name: route?.name ?? null,
        requestChanges: route?.requestChanges?.without(this.#name) ?? new FieldChanges([this.#name], NO_LINES),
        responseChanges: route?.responseChanges ?? null,
        rewrite: route?.rewrite ?? null,
        mirror: route?.mirror ?? null,
      },
    }
    targets.set(cluster, made)
    return made
  }
}

const NO_LINES = Buffer.alloc(0)
