/** What may be dialled at all, whatever DNS, SRV records, files and requests say; asked before any byte is sent. */
import { BlockList, isIP } from 'node:net'
import { HostList } from '../../common/host-list.ts'

export interface DialRefusal {
  /** Names the host, the address and the remedy. */
  readonly detail: string
  /** RFC 9209 section 2.3. */
  readonly proxyError: 'destination_ip_prohibited' | 'proxy_loop_detected'
}

export interface DialGuardOptions {
  /** The port on loopback that we listen on ourselves; 0: none. */
  readonly ownPort: number
  /** `egress.allow`; null: everything is allowed. */
  readonly allow: readonly string[] | null
  /** Names come from requests: none of them leads to an address of the link, whatever `allow` is. Default false. */
  readonly keepsOffLink?: boolean
}

/**
 * Where clouds keep metadata and credentials of the machine: the addresses of the link, and the one that AWS uses for IPv6. A name
 * that is allowed does not allow these, for whoever answers for the name in DNS would choose them; an address or a range does.
 */
const LINK = new BlockList()
LINK.addSubnet('169.254.0.0', 16, 'ipv4')
LINK.addSubnet('fe80::', 10, 'ipv6')
LINK.addAddress('fd00:ec2::254', 'ipv6')

/** What a connection to ends at this machine: loopback, and the addresses of nobody, which Linux takes for it. */
const SELF = new BlockList()
SELF.addSubnet('127.0.0.1', 32, 'ipv4')
SELF.addAddress('0.0.0.0', 'ipv4')
SELF.addAddress('::1', 'ipv6')
SELF.addAddress('::', 'ipv6')

export class DialGuard {
  /** Two guards with the same key refuse the same. */
  readonly key: string
  readonly #ownPort: number
  readonly #allow: HostList | null
  readonly #keepsOffLink: boolean

  /** @throws {Error} that quotes an entry of `allow` which is none */
  constructor(options: DialGuardOptions) {
    const { ownPort, allow, keepsOffLink = false } = options
    this.key = JSON.stringify([ownPort, allow, keepsOffLink])
    this.#ownPort = ownPort
    this.#allow = allow === null ? null : new HostList(allow)
    this.#keepsOffLink = keepsOffLink
  }

  /**
   * Why this must not be dialled; null: it may be.
   * @param host as configured or found: the name, or the address itself
   */
  refusal(host: string, ip: string, port: number): DialRefusal | null {
    // A Unix socket, which is no host: only the spec itself can name one.
    if (ip.startsWith('/')) return null
    if (port === this.#ownPort && isIn(SELF, ip)) {
      const detail = `${where(host, ip, port)} is the port that this Ambassador listens on, so it would call itself: correct what names it`
      return { detail, proxyError: 'proxy_loop_detected' }
    }
    if (this.#allow === null && !this.#keepsOffLink) return null
    const isName = isIP(host) === 0
    const isLink = isName && isIn(LINK, ip)
    if (this.#allow === null) return isLink ? linkRefusal(host, ip, port) : null
    if (this.#allow.allowsAddress(ip, port)) return null
    if (!isName || !this.#allow.allowsName(host, port)) {
      const detail = `${where(host, ip, port)} is not in egress.allow: add it there, or correct what names it`
      return { detail, proxyError: 'destination_ip_prohibited' }
    }
    return isLink ? linkRefusal(host, ip, port) : null
  }
}

/** For what belongs to no Ambassador. */
export const NO_GUARD = new DialGuard({ ownPort: 0, allow: null })

function linkRefusal(host: string, ip: string, port: number): DialRefusal {
  const detail = `${where(host, ip, port)} is an address of the link, where clouds keep their metadata, and a name does not allow it: add the address to egress.allow`
  return { detail, proxyError: 'destination_ip_prohibited' }
}

function isIn(list: BlockList, ip: string): boolean {
  return list.check(ip, isIP(ip) === 4 ? 'ipv4' : 'ipv6')
}

function where(host: string, ip: string, port: number): string {
  const address = `${ip.includes(':') ? `[${ip}]` : ip}:${port}`
  return host === ip ? `endpoint ${address}` : `endpoint '${host}' (${address})`
}
