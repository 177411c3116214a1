/** Reads resolv.conf and hosts, the two files that say how this machine turns names into addresses. */
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'

/** What resolv.conf says, see resolv.conf(5). */
export interface ResolvConf {
  /** In the order of preference. */
  readonly nameservers: readonly string[]
  /** Domains that are tried behind a name with fewer than `ndots` dots. */
  readonly search: readonly string[]
  readonly ndots: number
  /** How long one nameserver may take; null: not said. */
  readonly timeoutMs: number | null
  /** How often each nameserver is asked; null: not said. */
  readonly attempts: number | null
}

/** Parses resolv.conf. As in the C library, the last of several `search` and `domain` lines counts, and unknown words are passed over. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = []
  let search: readonly string[] = []
  let ndots = 1
  let timeoutMs: number | null = null
  let attempts: number | null = null
  for (const line of text.split('\n')) {
    const [key, ...values] = (/^[^#;]*/.exec(line)?.[0] ?? '').split(/\s+/).filter((word) => word !== '')
    if (key === 'nameserver' && isIP(values[0]?.replace(/%.*$/, '') ?? '') !== 0) nameservers.push(values[0] as string)
    else if (key === 'search' || key === 'domain') {
      search = values.map((domain) => domain.replace(/^\.+|\.+$/g, '')).filter((domain) => domain !== '')
    } else if (key === 'options') {
      for (const option of values) {
        const [, name, value] = /^(ndots|timeout|attempts):(\d+)$/.exec(option) ?? []
        // The bounds of the C library.
        if (name === 'ndots') ndots = Math.min(15, Number(value))
        else if (name === 'timeout') timeoutMs = Math.min(30, Math.max(1, Number(value))) * 1000
        else if (name === 'attempts') attempts = Math.min(5, Math.max(1, Number(value)))
      }
    }
  }
  // resolv.conf(5): without a nameserver line, the one on this machine is asked.
  return { nameservers: nameservers.length > 0 ? nameservers : ['127.0.0.1'], search, ndots, timeoutMs, attempts }
}

/** The addresses that a hosts file gives to a name (in lower case, without a dot at its end), in its order. */
export function hostsAddresses(text: string, name: string): readonly string[] {
  const addresses: string[] = []
  for (const line of text.split('\n')) {
    const [address, ...names] = (/^[^#]*/.exec(line)?.[0] ?? '')
      .toLowerCase()
      .split(/\s+/)
      .filter((word) => word !== '')
    if (address === undefined || isIP(address) === 0 || addresses.includes(address)) continue
    if (names.includes(name)) addresses.push(address)
  }
  return addresses
}

/** The text of a small file of the machine; empty when it cannot be read. Read for each look-up: both files change in a running pod. */
export function readSystemFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** The full names to ask for, in their order: the search list as resolv.conf(5) says. A name that ends in a dot is complete. */
export function candidateNames(name: string, conf: Pick<ResolvConf, 'search' | 'ndots'>): readonly string[] {
  if (name.endsWith('.')) return [name.slice(0, -1)].filter(isDnsName)
  const dots = name.split('.').length - 1
  const searched = conf.search.map((domain) => `${name}.${domain}`)
  return (dots >= conf.ndots ? [name, ...searched] : [...searched, name]).filter(isDnsName)
}

/** RFC 1035 section 2.3.4: at most 63 bytes between two dots and 253 in all. */
function isDnsName(name: string): boolean {
  const isLabel = (label: string) => label !== '' && Buffer.byteLength(label) <= 63
  return Buffer.byteLength(name) <= 253 && name.split('.').every(isLabel)
}
