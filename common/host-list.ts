/** Lists of hosts that somebody allows: names, everything below a name, addresses and ranges, each with or without a port. */
import { BlockList, isIP } from 'node:net'

/** Longest entry: a name of 253 characters with `*.` before it and a port behind it. */
export const HOST_PATTERN_MAX_LENGTH = 261

const LABEL = '[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?'
const BYTE = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const PORT = '(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?'

/** A name, or everything below one. */
export const NAME_PATTERN = `^([*][.])?(${LABEL}[.])*${LABEL}${PORT}$`
/** What ends in a number is no name but a mistyped address (RFC 3696 section 2). */
export const NUMERIC_END_PATTERN = '(^|[.])[0-9]+(:[0-9]+)?$'
/** An IPv4 address or a range of them. */
export const IPV4_PATTERN = `^(${BYTE}[.]){3}${BYTE}(/([0-9]|[12][0-9]|3[0-2]))?${PORT}$`
/** An IPv6 address with a port; without one it needs no brackets. */
export const IPV6_PORT_PATTERN = `^\\[[0-9a-fA-F:]+\\]${PORT}$`

/** One entry, read. Port null: every port. */
type Entry =
  | { readonly kind: 'name'; readonly name: string; readonly port: number | null }
  /** `name` with its leading dot. */
  | { readonly kind: 'below'; readonly name: string; readonly port: number | null }
  | { readonly kind: 'range'; readonly ip: string; readonly bits: number; readonly port: number | null }

/** Reads an entry; null when it is none. */
function readEntry(text: string): Entry | null {
  if (text.length > HOST_PATTERN_MAX_LENGTH) return null
  const [address = '', bits = '128', ...more] = text.split('/')
  if (isAddress6(address)) {
    const isRange = more.length === 0 && /^([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])$/.test(bits)
    return isRange ? { kind: 'range', ip: address, bits: Number(bits), port: null } : null
  }
  const [, bracketed, plain = '', digits] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(text) ?? []
  const port = digits === undefined ? null : Number(digits)
  if (bracketed !== undefined) {
    const isPort = new RegExp(IPV6_PORT_PATTERN).test(text)
    return isPort && isAddress6(bracketed) ? { kind: 'range', ip: bracketed, bits: 128, port } : null
  }
  if (new RegExp(IPV4_PATTERN).test(text)) {
    const [ip = '', prefix = '32'] = plain.split('/')
    return { kind: 'range', ip, bits: Number(prefix), port }
  }
  if (!new RegExp(NAME_PATTERN).test(text) || new RegExp(NUMERIC_END_PATTERN).test(text)) return null
  const name = plain.toLowerCase()
  return name.startsWith('*.') ? { kind: 'below', name: name.slice(1), port } : { kind: 'name', name, port }
}

/** As Kubernetes sees it: no zone, and no IPv4 address in the clothes of IPv6. */
function isAddress6(text: string): boolean {
  return isIP(text) === 6 && !text.includes('%') && !new URL(`http://[${text}]`).hostname.startsWith('[::ffff:')
}

/** Whether a text is an entry of such a list. */
export function isHostPattern(text: string): boolean {
  return readEntry(text) !== null
}

/** A list, compiled. */
export class HostList {
  readonly #names = new Map<string, Set<number | null>>()
  readonly #below: { readonly name: string; readonly port: number | null }[] = []
  readonly #ranges: { readonly block: BlockList; readonly isIPv6: boolean; readonly port: number | null }[] = []

  /** @throws {Error} that quotes the entry which is none, with the remedy */
  constructor(entries: readonly string[]) {
    for (const text of entries) {
      const entry = readEntry(text)
      if (entry === null)
        throw new Error(`'${text}' is not a host, use host, host:port, *.domain, an address or a range`)
      if (entry.kind === 'below') this.#below.push(entry)
      else if (entry.kind === 'range') {
        const block = new BlockList()
        const isIPv6 = isIP(entry.ip) === 6
        block.addSubnet(entry.ip, entry.bits, isIPv6 ? 'ipv6' : 'ipv4')
        this.#ranges.push({ block, isIPv6, port: entry.port })
      } else {
        const ports = this.#names.get(entry.name) ?? new Set()
        ports.add(entry.port)
        this.#names.set(entry.name, ports)
      }
    }
  }

  /** Whether it has addresses or ranges, which may be those of any name. */
  get hasRanges(): boolean {
    return this.#ranges.length > 0
  }

  /** Whether an entry allows this name by name: itself, or `*.` and what it ends with. Case and a dot at the end do not matter. */
  allowsName(host: string, port: number): boolean {
    const name = host.toLowerCase().replace(/\.$/, '')
    const ports = this.#names.get(name)
    if (ports !== undefined && (ports.has(null) || ports.has(port))) return true
    return this.#below.some((each) => (each.port === null || each.port === port) && isBelow(name, each.name))
  }

  /**
   * Whether an entry allows this address as an address. A range of IPv6 has none of IPv4, though BlockList takes each of them for one
   * that begins with `::ffff:` too.
   */
  allowsAddress(ip: string, port: number): boolean {
    const family = isIP(ip)
    if (family === 0) return false
    const isIPv6 = family === 6 && isAddress6(ip)
    return this.#ranges.some(
      (each) =>
        each.isIPv6 === isIPv6 &&
        (each.port === null || each.port === port) &&
        each.block.check(ip, family === 4 ? 'ipv4' : 'ipv6'),
    )
  }

  /** Whether an entry allows a host as somebody wrote it, a name or an address. */
  allows(host: string, port: number): boolean {
    return isIP(host) === 0 ? this.allowsName(host, port) : this.allowsAddress(host, port)
  }
}

/** One label or more before the domain. */
function isBelow(name: string, domain: string): boolean {
  return name.length > domain.length && name.endsWith(domain)
}
