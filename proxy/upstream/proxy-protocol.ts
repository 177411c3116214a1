/** The header of the PROXY protocol, versions 1 and 2, that goes before the first byte of a connection to an upstream. */
import { isIP } from 'node:net'
import type { ProxyProtocol } from '../../common/proxy-config.ts'

/** An end of a connection. */
export interface Peer {
  readonly address: string
  readonly port: number
}

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const VERSION_2 = 0x20
const LOCAL = 0x0
const PROXY = 0x1
const TCP4 = 0x11
const TCP6 = 0x21

/**
 * The header for a connection from `from` to `to`. Null in place of them: a connection of our own, such as a check (section 2.1 and
 * 2.2 of the specification: UNKNOWN, LOCAL), of which the upstream takes the addresses that it sees.
 */
export function proxyHeader(version: ProxyProtocol, ends: { readonly from: Peer; readonly to: Peer } | null): Buffer {
  const family = ends === null ? 0 : isIP(ends.from.address)
  if (ends === null || family === 0 || isIP(ends.to.address) !== family) return ownHeader(version)
  const { from, to } = ends
  if (version === 'V1') {
    return Buffer.from(`PROXY TCP${family} ${from.address} ${to.address} ${from.port} ${to.port}\r\n`, 'latin1')
  }
  const addresses = [addressBytes(from.address), addressBytes(to.address)]
  const length = addresses[0]!.length * 2 + 4
  const head = Buffer.alloc(4)
  head[0] = VERSION_2 | PROXY
  head[1] = family === 4 ? TCP4 : TCP6
  head.writeUInt16BE(length, 2)
  const ports = Buffer.alloc(4)
  ports.writeUInt16BE(from.port, 0)
  ports.writeUInt16BE(to.port, 2)
  return Buffer.concat([SIGNATURE, head, ...addresses, ports])
}

function ownHeader(version: ProxyProtocol): Buffer {
  if (version === 'V1') return Buffer.from('PROXY UNKNOWN\r\n', 'latin1')
  return Buffer.concat([SIGNATURE, Buffer.from([VERSION_2 | LOCAL, 0, 0, 0])])
}

/** The 4 or 16 bytes of an IP address. */
export function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  // IPv4 inside IPv6 has its last 32 bits in decimals.
  const text = address.replace(/%.*$/, '').replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_all, ...parts: string[]) => {
    const [a, b, c, d] = parts.map(Number) as [number, number, number, number]
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  })
  const [left = '', right] = text.split('::')
  const words = (part: string) => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)))
  const before = words(left)
  const behind = right === undefined ? [] : words(right)
  const all = [...before, ...new Array<number>(8 - before.length - behind.length).fill(0), ...behind]
  const bytes = Buffer.alloc(16)
  for (const [index, word] of all.entries()) bytes.writeUInt16BE(word, index * 2)
  return bytes
}
