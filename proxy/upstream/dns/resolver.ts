/** Turns a name into addresses as the machine is told to: hosts file, search list, every nameserver, with the time that the answer holds. */
import { isIP } from 'node:net'
import { askNameserver, type DnsQuestion, type Nameserver } from './exchange.ts'
import { InTurn } from './in-turn.ts'
import { type ReadRecords, type Records, readAddresses, readServices, type SrvRecord } from './records.ts'
import { candidateNames, hostsAddresses, parseResolvConf, type ResolvConf, readSystemFile } from './resolv-conf.ts'
import { SharedLooks } from './shared-looks.ts'

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
  | LookUpFailure

/** Where a service is, as its SRV records say. */
export type ServiceResolution =
  | {
      readonly ok: true
      /** Sorted by priority and target, at least one. */
      readonly records: readonly SrvRecord[]
      readonly ttlMs: number
      /** The full name that was found; ask for it from now on. */
      readonly found: string
    }
  | LookUpFailure

export interface LookUpFailure {
  readonly ok: false
  /** The name has no such record, says DNS; otherwise nobody could tell. */
  readonly isDefinite: boolean
  /** For a person: the name, what happened and the remedy. */
  readonly why: string
  /** No nameserver said anything. */
  readonly isTimeout: boolean
}

/** A nameserver that says nothing for this long is helped by the next one; the first answer of any of them counts. */
const NEXT_SERVER_MS = 300
/** All have been asked: so long until the first is asked again, in case a datagram was lost. */
const NEXT_ROUND_MS = 1000
const ROUNDS = 2

/** How long the records of the second family are waited for when those of the first are there. */
const OTHER_FAMILY_MS = 300

/** At a time, of two questions each: a list of a thousand names, all asked for at once, is more than a nameserver takes in. */
const MAX_LOOK_UPS = 100

/** How long an entry of the hosts file holds, which says nothing of it. */
const HOSTS_TTL_MS = 10_000

export class Resolver {
  readonly #options: ResolverOptions
  readonly #addresses = new SharedLooks<Resolution>()
  readonly #services = new SharedLooks<ServiceResolution>()
  readonly #inTurn = new InTurn(MAX_LOOK_UPS)

  constructor(options: ResolverOptions = {}) {
    this.#options = options
  }

  /**
   * Looks a name up. Never throws; several callers of one name share a look-up.
   * @param known the full name that an earlier look-up found: the search list is gone through again only when it is gone
   */
  resolve(name: string, known: string | null = null): Promise<Resolution> {
    const key = name.toLowerCase()
    return this.#addresses.look(key, async () => {
      const find = () => this.#find(key, known, (full, conf) => this.#lookUp(full, conf))
      return this.#withoutDns(key) ?? this.#inTurn.run(find)
    })
  }

  /**
   * Looks up the SRV records of a name such as `_redis._tcp.example.com` (RFC 2782). Never throws; several callers of one name
   * share a look-up. Its targets are names, to be resolved.
   * @param known the full name that an earlier look-up found
   */
  resolveService(name: string, known: string | null = null): Promise<ServiceResolution> {
    const key = name.toLowerCase()
    const find = () => this.#find(key, known, (full, conf) => this.#lookUpService(full, conf))
    return this.#services.look(key, () => this.#inTurn.run(find))
  }

  async #find<R extends { readonly ok: true }>(name: string, known: string | null, lookUp: LookUp<R>) {
    const conf = parseResolvConf(readSystemFile(this.#options.resolvConf ?? '/etc/resolv.conf'))
    if (known !== null) {
      const resolution = await lookUp(known, conf)
      if (resolution.ok || !resolution.isDefinite) return resolution
      const candidates = candidateNames(name, conf)
      if (candidates.length === 1 && candidates[0] === known) return resolution
    }
    return search(name, conf, lookUp)
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

  /** Both families of one full name. */
  async #lookUp(name: string, conf: ResolvConf): Promise<Resolution> {
    const [v4, v6] = await bothOrFound(
      this.#ask({ name, type: 'A' }, conf, readAddresses),
      this.#ask({ name, type: 'AAAA' }, conf, readAddresses),
    )
    const found = [v4, v6].filter((records) => records.kind === 'found')
    if (found.length > 0) {
      return {
        ok: true,
        addresses: this.#reachable(found.flatMap((records) => records.values)),
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

  /** The SRV records of one full name. */
  async #lookUpService(name: string, conf: ResolvConf): Promise<ServiceResolution> {
    const records = await this.#ask({ name, type: 'SRV' }, conf, readServices)
    switch (records.kind) {
      case 'found': {
        const sorted = [...records.values].sort((a, b) => a.priority - b.priority || compare(targetOf(a), targetOf(b)))
        return { ok: true, records: sorted, ttlMs: this.#clamp(records.ttlMs), found: name }
      }
      case 'failed': {
        const why = `SRV name '${name}' cannot be resolved: ${records.why}`
        return { ok: false, isDefinite: false, why, isTimeout: records.isTimeout }
      }
      case 'none': {
        const what = records.isNameUnknown ? 'does not exist in DNS' : 'has no SRV record in DNS that names a target'
        return { ok: false, isDefinite: true, why: `SRV name '${name}' ${what}, check srv.name`, isTimeout: false }
      }
    }
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
  #ask<T>(question: DnsQuestion, conf: ResolvConf, read: ReadRecords<T>): Promise<Records<T>> {
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
      const finish = (records: Records<T>) => {
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
          const records = reply.ok ? read(reply.packet, reply.rcode, question) : null
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

/** Looks one full name up. */
type LookUp<R> = (name: string, conf: ResolvConf) => Promise<R | LookUpFailure>

/** Tries the candidates of the search list until one has an address. */
async function search<R extends { readonly ok: true }>(
  name: string,
  conf: ResolvConf,
  lookUp: LookUp<R>,
): Promise<R | LookUpFailure> {
  const candidates = candidateNames(name, conf)
  if (candidates.length === 0) {
    const why = `name '${name}' cannot be asked for: a part of it is empty or longer than 63 characters, correct it`
    return { ok: false, isDefinite: true, why, isTimeout: false }
  }
  let failure: LookUpFailure | null = null
  for (const candidate of candidates) {
    const resolution = await lookUp(candidate, conf)
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

/** Waits for both; once one has found addresses, only a moment longer for the other: some nameservers drop questions for AAAA. */
async function bothOrFound<T>(a: Promise<Records<T>>, b: Promise<Records<T>>): Promise<[Records<T>, Records<T>]> {
  const late: Records<T> = { kind: 'failed', why: 'was late', isTimeout: true }
  let timer: NodeJS.Timeout | undefined
  const moment = new Promise<Records<T>>((resolve) => {
    const begin = (records: Records<T>) => {
      if (records.kind === 'found') timer ??= setTimeout(() => resolve(late), OTHER_FAMILY_MS)
    }
    void a.then(begin)
    void b.then(begin)
  })
  const both = await Promise.all([Promise.race([a, moment]), Promise.race([b, moment])])
  clearTimeout(timer)
  return both
}

function targetOf({ target, port }: SrvRecord): string {
  return `${target}:${port}`
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.')
}

function hasIpv6(): boolean {
  return Object.values(process.getBuiltinModule('node:os').networkInterfaces()).some((addresses) =>
    addresses?.some(({ family, internal, address }) => family === 'IPv6' && !internal && !address.startsWith('fe80')),
  )
}
