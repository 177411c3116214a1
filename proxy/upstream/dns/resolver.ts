/** Turns a name into addresses as the machine is told to: hosts file, search list, every nameserver, with the time that the answer holds. */
import { isIP } from 'node:net'
import type { DecodedPacket } from 'dns-packet'
import { askNameserver, type DnsQuestion, type Nameserver, Rcode } from './exchange.ts'
import { candidateNames, hostsAddresses, parseResolvConf, type ResolvConf, readSystemFile } from './resolv-conf.ts'

export interface ResolverOptions {
  /** Default /etc/resolv.conf. Read for each look-up, so that a nameserver that moved is found. */
  readonly resolvConf?: string
  /** Default /etc/hosts. */
  readonly hosts?: string
  /** Port of the nameservers. Default 53. */
  readonly port?: number
  /**
   * Passes over loopback addresses in the hosts file, `localhost` aside. Default false. Right in a pod, where the file may map the
   * name that the application uses, and that the upstream has too, to our own listener: we would dial ourselves.
   */
  readonly ignoreLoopbackHosts?: boolean
  /** How long one nameserver may take when resolv.conf does not say. Default 2 s. */
  readonly timeoutMs?: number
  /** Bounds of the time that an answer holds. Default 1 s and 5 minutes. */
  readonly minTtlMs?: number
  readonly maxTtlMs?: number
  /** Whether IPv6 addresses can be reached. Default: some interface has one that is neither loopback nor link-local. */
  readonly hasIpv6?: () => boolean
}

export type Resolution =
  | {
      readonly ok: true
      /** Sorted, at least one. */
      readonly addresses: readonly string[]
      readonly ttlMs: number
      /** The full name that was found; ask for it from now on. Null when it was not DNS that answered. */
      readonly found: string | null
      /** The family that could not be looked up this time, so that its earlier addresses may still hold; null: both were. */
      readonly unknownFamily: 4 | 6 | null
    }
  | {
      readonly ok: false
      /** The name has no address, says DNS; otherwise nobody could tell. */
      readonly isDefinite: boolean
      /** For a person: the name, what happened and the remedy. */
      readonly why: string
      /** No nameserver said anything. */
      readonly isTimeout: boolean
    }

/** What one type of record of one full name came to. */
type Records =
  | { readonly kind: 'found'; readonly addresses: readonly string[]; readonly ttlMs: number }
  | { readonly kind: 'none'; readonly isNameUnknown: boolean }
  | { readonly kind: 'failed'; readonly why: string; readonly isTimeout: boolean }

/** A nameserver that says nothing for this long is helped by the next one; the first answer of any of them counts. */
const NEXT_SERVER_MS = 300
/** All have been asked: so long until the first is asked again, in case a datagram was lost. */
const NEXT_ROUND_MS = 1000
const ROUNDS = 2

/** How long the records of the second family are waited for when those of the first are there. */
const OTHER_FAMILY_MS = 300

/**
 * How long a name that does not exist is not asked for again. RFC 2308 allows as long as the SOA record says; but somebody
 * may be waiting for this name to appear.
 */
const NEGATIVE_MS = 1_000
const MAX_NEGATIVE_NAMES = 1000

/** How long an entry of the hosts file holds, which says nothing of it. */
const HOSTS_TTL_MS = 10_000
const MAX_CNAMES = 16

export class Resolver {
  readonly #options: ResolverOptions
  readonly #inFlight = new Map<string, Promise<Resolution>>()
  readonly #negative = new Map<string, { readonly until: number; readonly resolution: Resolution }>()

  constructor(options: ResolverOptions = {}) {
    this.#options = options
  }

  /**
   * Looks a name up. Never throws; several callers of one name share a look-up.
   * @param known the full name that an earlier look-up found: the search list is gone through again only when it is gone
   */
  resolve(name: string, known: string | null = null): Promise<Resolution> {
    const key = name.toLowerCase()
    const negative = this.#negative.get(key)
    if (negative !== undefined) {
      if (performance.now() < negative.until) return Promise.resolve(negative.resolution)
      this.#negative.delete(key)
    }
    const running = this.#inFlight.get(key)
    if (running !== undefined) return running
    const look = this.#resolve(key, known).then((resolution) => {
      this.#inFlight.delete(key)
      if (!resolution.ok && resolution.isDefinite) {
        if (this.#negative.size >= MAX_NEGATIVE_NAMES) this.#negative.clear()
        this.#negative.set(key, { until: performance.now() + NEGATIVE_MS, resolution })
      }
      return resolution
    })
    this.#inFlight.set(key, look)
    return look
  }

  async #resolve(name: string, known: string | null): Promise<Resolution> {
    const fixed = this.#withoutDns(name)
    if (fixed !== null) return fixed
    const conf = parseResolvConf(readSystemFile(this.#options.resolvConf ?? '/etc/resolv.conf'))
    if (known !== null) {
      const resolution = await this.#lookUp(known, conf)
      if (resolution.ok || !resolution.isDefinite) return resolution
    }
    return this.#search(name, conf)
  }

  /** An address, the hosts file, localhost (RFC 6761 section 6.3); null when DNS must be asked. */
  #withoutDns(name: string): Resolution | null {
    const bare = name.replace(/\.$/, '')
    const answer = (addresses: readonly string[], ttlMs: number): Resolution => ({
      ok: true,
      addresses,
      ttlMs,
      found: null,
      unknownFamily: null,
    })
    if (isIP(bare) !== 0) return answer([bare], this.#options.maxTtlMs ?? 300_000)
    const isLocalhost = bare === 'localhost' || bare.endsWith('.localhost')
    const hosts = hostsAddresses(readSystemFile(this.#options.hosts ?? '/etc/hosts'), bare).filter(
      (address) => isLocalhost || !this.#options.ignoreLoopbackHosts || !isLoopback(address),
    )
    if (hosts.length > 0) return answer([...hosts].sort(), HOSTS_TTL_MS)
    return isLocalhost ? answer(['127.0.0.1', '::1'], HOSTS_TTL_MS) : null
  }

  /** Tries the candidates of the search list until one has an address. */
  async #search(name: string, conf: ResolvConf): Promise<Resolution> {
    const candidates = candidateNames(name, conf)
    if (candidates.length === 0) {
      const why = `name '${name}' cannot be asked for: a part of it is empty or longer than 63 characters, correct it`
      return { ok: false, isDefinite: true, why, isTimeout: false }
    }
    let failure: Resolution | null = null
    for (const candidate of candidates) {
      const resolution = await this.#lookUp(candidate, conf)
      if (resolution.ok) return resolution
      if (resolution.isDefinite && candidates.length === 1) return resolution
      if (resolution.isDefinite) continue
      // As in the C library: a nameserver that fails for one domain may know the next, but silence would be the same for all.
      failure ??= resolution
      if (resolution.isTimeout) break
    }
    if (failure !== null) return failure
    const asked = candidates.map((candidate) => `'${candidate}'`).join(', ')
    const why = `name '${name}' does not exist in DNS (asked for ${asked}), check the host of the upstream`
    return { ok: false, isDefinite: true, why, isTimeout: false }
  }

  /** Both families of one full name. */
  async #lookUp(name: string, conf: ResolvConf): Promise<Resolution> {
    const [v4, v6] = await bothOrFound(this.#ask({ name, type: 'A' }, conf), this.#ask({ name, type: 'AAAA' }, conf))
    const found = [v4, v6].filter((records) => records.kind === 'found')
    if (found.length > 0) {
      return {
        ok: true,
        addresses: this.#reachable(found.flatMap((records) => records.addresses)),
        ttlMs: this.#clamp(Math.min(...found.map((records) => records.ttlMs))),
        found: name,
        unknownFamily: v4.kind === 'failed' ? 4 : v6.kind === 'failed' ? 6 : null,
      }
    }
    for (const records of [v4, v6]) {
      if (records.kind !== 'failed') continue
      const why = `name '${name}' cannot be resolved: ${records.why}`
      return { ok: false, isDefinite: false, why, isTimeout: records.isTimeout }
    }
    const isNameUnknown = [v4, v6].some((records) => records.kind === 'none' && records.isNameUnknown)
    const why = isNameUnknown
      ? `name '${name}' does not exist in DNS, check the host of the upstream`
      : `name '${name}' has no A or AAAA record in DNS, add one or check the host of the upstream`
    return { ok: false, isDefinite: true, why, isTimeout: false }
  }

  /** Leaves out the addresses of a family that this machine has no way to (RFC 6724 section 4), unless nothing else is left. */
  #reachable(addresses: readonly string[]): readonly string[] {
    const sorted = [...new Set(addresses)].sort()
    if (!sorted.some((address) => address.includes(':')) || (this.#options.hasIpv6 ?? hasIpv6)()) return sorted
    const usable = sorted.filter((address) => !address.includes(':') || isLoopback(address))
    return usable.length > 0 ? usable : sorted
  }

  /**
   * Asks the nameservers: the first alone, the next one too when it fails or is silent for a moment, until one of them answers.
   * Which one is first matters: the second of a split DNS may know another world.
   */
  #ask(question: DnsQuestion, conf: ResolvConf): Promise<Records> {
    const port = this.#options.port ?? 53
    const servers: Nameserver[] = conf.nameservers.map((host) => ({ host, port }))
    const timeoutMs = conf.timeoutMs ?? this.#options.timeoutMs ?? 2_000
    const total = servers.length * (conf.attempts ?? ROUNDS)
    return new Promise((resolve) => {
      const rest = new AbortController()
      const silent = new Set<string>()
      const refusals = new Map<string, string>()
      let started = 0
      let running = 0
      let timer: NodeJS.Timeout | undefined
      const finish = (records: Records) => {
        clearTimeout(timer)
        rest.abort()
        resolve(records)
      }
      const startNext = () => {
        clearTimeout(timer)
        if (started === total) return
        const server = servers[started % servers.length] as Nameserver
        started++
        running++
        void askNameserver(question, server, timeoutMs, rest.signal).then((reply) => {
          if (rest.signal.aborted) return
          running--
          const records = reply.ok ? readRecords(reply.packet, reply.rcode, question) : null
          if (records !== null && records.kind !== 'failed') {
            finish(records)
            return
          }
          if (records === null && !reply.ok) silent.add(server.host)
          refusals.set(server.host, records?.why ?? (reply.ok ? '' : reply.why))
          if (running === 0 && started === total) {
            const why = [...refusals].map(([host, text]) => `nameserver ${host} ${text}`).join('; ')
            finish({ kind: 'failed', why, isTimeout: silent.size === servers.length })
            return
          }
          startNext()
        })
        if (started < total) {
          timer = setTimeout(startNext, started % servers.length === 0 ? NEXT_ROUND_MS : NEXT_SERVER_MS)
        }
      }
      startNext()
    })
  }

  #clamp(ttlMs: number): number {
    return Math.min(this.#options.maxTtlMs ?? 300_000, Math.max(this.#options.minTtlMs ?? 1_000, ttlMs))
  }
}

/** Waits for both; once one has found addresses, only a moment longer for the other: some nameservers drop questions for AAAA. */
async function bothOrFound(a: Promise<Records>, b: Promise<Records>): Promise<[Records, Records]> {
  const late: Records = { kind: 'failed', why: 'was late', isTimeout: true }
  let timer: NodeJS.Timeout | undefined
  const moment = new Promise<Records>((resolve) => {
    const begin = (records: Records) => {
      if (records.kind === 'found') timer ??= setTimeout(() => resolve(late), OTHER_FAMILY_MS)
    }
    void a.then(begin)
    void b.then(begin)
  })
  const both = await Promise.all([Promise.race([a, moment]), Promise.race([b, moment])])
  clearTimeout(timer)
  return both
}

/** Reads the addresses out of an answer, along its aliases. */
function readRecords(packet: DecodedPacket, rcode: number, question: DnsQuestion): Records {
  if (rcode !== Rcode.noError && rcode !== Rcode.nameError) {
    const name = Object.entries(Rcode).find(([, code]) => code === rcode)?.[0] ?? `code ${rcode}`
    return { kind: 'failed', why: `answers with an error (${RCODE_NAMES[name] ?? name})`, isTimeout: false }
  }
  const answers = packet.answers ?? []
  let owner = question.name.toLowerCase()
  let ttl = Number.POSITIVE_INFINITY
  for (let hops = 0; hops < MAX_CNAMES; hops++) {
    const alias = answers.find((answer) => answer.type === 'CNAME' && answer.name.toLowerCase() === owner)
    if (alias?.type !== 'CNAME') break
    owner = alias.data.toLowerCase()
    ttl = Math.min(ttl, alias.ttl ?? 0)
  }
  const addresses: string[] = []
  for (const answer of answers) {
    if (answer.type !== question.type || answer.name.toLowerCase() !== owner) continue
    if (answer.type !== 'A' && answer.type !== 'AAAA') continue
    // The unspecified address is what filters answer for a name that they block; dialled, it is this pod itself.
    if (isIP(answer.data) === 0 || answer.data === '0.0.0.0' || answer.data === '::') continue
    addresses.push(answer.data)
    ttl = Math.min(ttl, answer.ttl ?? 0)
  }
  if (addresses.length > 0) return { kind: 'found', addresses, ttlMs: ttl * 1000 }
  return { kind: 'none', isNameUnknown: rcode === Rcode.nameError }
}

const RCODE_NAMES: Readonly<Record<string, string>> = {
  formatError: 'FORMERR',
  serverFailure: 'SERVFAIL',
  notImplemented: 'NOTIMP',
  refused: 'REFUSED',
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.')
}

function hasIpv6(): boolean {
  return Object.values(process.getBuiltinModule('node:os').networkInterfaces()).some((addresses) =>
    addresses?.some(({ family, internal, address }) => family === 'IPv6' && !internal && !address.startsWith('fe80')),
  )
}
