/** The list of endpoints that other programs write: `host:port weight=N priority=N zone=NAME`, one a line; see docs/endpoints-file.md. */
import { isIP } from 'node:net'
import type { Target } from './name-set.ts'

export type EndpointList =
  /** At least one. */
  | { readonly ok: true; readonly targets: readonly Target[] }
  /** `line 3, column 12: ...`, with the remedy. */
  | { readonly ok: false; readonly problem: string }

const MAX_ENDPOINTS = 1000

/** Bounds of the words behind the address, and what holds without them; those of `endpoints` in an Ambassador. */
const WORDS: Readonly<Record<string, { readonly min: number; readonly max: number; readonly otherwise: number }>> = {
  weight: { min: 1, max: 1000, otherwise: 1 },
  priority: { min: 0, max: 15, otherwise: 0 },
}

/** As the value of a label of Kubernetes. */
const ZONE = /^[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?$/

/** Reads a list. Any mistake refuses all of it: half a list would move the traffic to the other half. */
export function parseEndpointList(text: string): EndpointList {
  const targets: Target[] = []
  const lineOf = new Map<string, number>()
  const lines = text.replace(/^\ufeff/, '').split('\n')
  for (const [index, line] of lines.entries()) {
    const wrong = (column: number, what: string): EndpointList => {
      return { ok: false, problem: `line ${index + 1}, column ${column + 1}: ${what}` }
    }
    const words = [
      ...line
        .replace(/\r$/, '')
        .replace(/(^|[ \t])#.*$/, '')
        .matchAll(/[^ \t]+/g),
    ]
    const [address, ...settings] = words
    if (address === undefined) continue
    const place = readAddress(address[0])
    if (typeof place !== 'object') return wrong(address.index, place)
    const values: Record<string, number> = {}
    let zone: string | undefined
    for (const { 0: word, index: column } of settings) {
      const [, name = '', digits = ''] = /^([^=]+)=(.*)$/.exec(word) ?? []
      if (name === 'zone') {
        if (zone !== undefined) return wrong(column, 'zone stands twice, remove one')
        if (!ZONE.test(digits)) return wrong(column, `zone ${quoted(digits)} is not a name, use one such as eu-west-1a`)
        zone = digits
        continue
      }
      const known = Object.hasOwn(WORDS, name) ? WORDS[name] : undefined
      if (known === undefined) {
        return wrong(column, `${quoted(word)} is not known, use weight=N, priority=N or zone=NAME`)
      }
      if (Object.hasOwn(values, name)) return wrong(column, `${name} stands twice, remove one`)
      const value = /^\d{1,9}$/.test(digits) ? Number(digits) : Number.NaN
      if (!(value >= known.min && value <= known.max)) {
        return wrong(column, `${name} ${quoted(digits)} is out of range, use ${known.min} to ${known.max}`)
      }
      values[name] = value
    }
    const { host, port } = place
    const key = `${host} ${port}`
    const other = lineOf.get(key)
    if (other !== undefined)
      return wrong(address.index, `${quoted(address[0])} stands in line ${other} too, remove one`)
    lineOf.set(key, index + 1)
    const weight = values['weight'] ?? WORDS['weight']!.otherwise
    const priority = values['priority'] ?? WORDS['priority']!.otherwise
    targets.push({ host, port, weight, priority, ...(zone !== undefined && { zone }) })
    if (targets.length > MAX_ENDPOINTS) return wrong(address.index, `more than ${MAX_ENDPOINTS} endpoints, remove some`)
  }
  if (targets.length > 0) return { ok: true, targets }
  return { ok: false, problem: `line ${lines.length}, column 1: has no endpoint, write at least one line host:port` }
}

/** `host:port` or `[IPv6]:port`; else what is wrong with it. */
function readAddress(text: string): { readonly host: string; readonly port: number } | string {
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]*)\]|([^:[\]]+)):([^:]*)$/.exec(text) ?? []
  if (text.includes('@')) return `${quoted(text)} has a user, use host:port`
  const host = (bracketed ?? plain ?? '').toLowerCase()
  if (host === '') {
    if (text.includes('://')) return `${quoted(text)} has a scheme, use host:port`
    if (isIP(text) === 6) return `${quoted(text)} has no port, use [${text}]:port`
    return `${quoted(text)} is not an endpoint, use host:port or [address]:port`
  }
  if (bracketed === undefined ? isIP(host) === 0 && !isName(host) : isIP(host) !== 6 || host.includes('%')) {
    return `host ${quoted(host)} is not a DNS name or an IP address, correct it`
  }
  const port = /^\d{1,5}$/.test(digits) ? Number(digits) : 0
  if (port < 1 || port > 65535) return `port ${quoted(digits)} is out of range, use 1 to 65535`
  return { host, port }
}

/** As for `endpoints`: underscores are in names that people use, and a name whose last part is a number is a mistyped address. */
function isName(text: string): boolean {
  const name = text.replace(/\.$/, '')
  const isShaped = /^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*$/.test(name)
  return isShaped && name.length <= 253 && !/(^|\.)\d+$/.test(name)
}

/** As it goes into a log line: not too long, without what would break it, and without a user or password, which lists of URLs have. */
function quoted(text: string): string {
  const bare = text.replace(/^([a-z]+:\/\/)?.*@/i, '$1***@')
  const shown = bare.length > 80 ? `${bare.slice(0, 80)}...` : bare
  return `'${shown.replaceAll(/\p{C}/gu, '?')}'`
}
