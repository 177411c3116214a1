/** The CAs in the operator's Secret: what is stored, when a new one is due, which one signs. Pure but for the making of keys. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { createAuthority, type KeyPair } from './x509.ts'

const HOUR = 60 * 60 * 1000
const DAY = 24 * HOUR

/** How long things live, in milliseconds. */
export interface Lifetimes {
  /** Of a CA. Default 365 days. */
  readonly authorityMs: number
  /** Of a serving certificate. Default 7 days. */
  readonly leafMs: number
  /** Time between the making of a CA and its first signature while an older one can sign, so that every API server trusts it by then. Default 5 minutes. */
  readonly settleMs: number
  /** Certificates count from this long ago, for clocks that go wrong. Default 1 hour. */
  readonly backdateMs: number
  /** Time between two looks at Secret and webhook configuration. Default 15 seconds. */
  readonly checkMs: number
}

export const DEFAULT_LIFETIMES: Lifetimes = {
  authorityMs: 365 * DAY,
  leafMs: 7 * DAY,
  settleMs: 5 * 60 * 1000,
  backdateMs: HOUR,
  checkMs: 15_000,
}

/** A certificate is renewed when this share of its life has passed. */
export const RENEW_AT = 2 / 3

export interface Authority {
  readonly pair: KeyPair
  /** Milliseconds since 1970. */
  readonly notBefore: number
  readonly notAfter: number
}

/** Newest first; the second one signed before. Never empty. */
export type Authorities = readonly [Authority, ...Authority[]]

/** Keys of the Secret, newest CA first. */
const KEYS = [
  ['ca.crt', 'ca.key'],
  ['previous.crt', 'previous.key'],
] as const

/** A new CA in front of those that are still worth keeping. */
export function rotated(before: readonly Authority[], now: number, lifetimes: Lifetimes): Authorities {
  const notBefore = now - lifetimes.backdateMs
  const notAfter = now + lifetimes.authorityMs
  const pair = createAuthority({ notBefore: new Date(notBefore), notAfter: new Date(notAfter) })
  return [read(pair), ...before.filter((each) => each.notAfter > now).slice(0, KEYS.length - 1)]
}

/** Whether the newest CA has lived two thirds of its life, or is not valid yet (a clock that was far ahead made it). */
export function isDue(authority: Authority, now: number): boolean {
  return now >= renewalTime(authority.notBefore, authority.notAfter) || now < authority.notBefore
}

/** When a certificate is to be renewed, in milliseconds since 1970. */
export function renewalTime(notBefore: number, notAfter: number): number {
  return notBefore + (notAfter - notBefore) * RENEW_AT
}

/** Whether every API server had time to hear of this CA. */
export function isSettled(authority: Authority, now: number, { backdateMs, settleMs }: Lifetimes): boolean {
  return now >= authority.notBefore + backdateMs + settleMs
}

/** The CA that signs now: the newest that API servers had time to hear of, otherwise the one before. */
export function signer(authorities: Authorities, now: number, lifetimes: Lifetimes): Authority {
  const [newest, previous] = authorities
  const isUsable = previous !== undefined && previous.notBefore <= now && now < previous.notAfter
  return isSettled(newest, now, lifetimes) || !isUsable ? newest : previous
}

/** Every CA that may have signed what is served, as one PEM file. */
export function bundle(authorities: Authorities, now: number): string {
  return authorities
    .filter((each, index) => index === 0 || each.notAfter > now)
    .map((each) => each.pair.certificate)
    .join('')
}

/** At most so many certificates of CAs that are nowhere else are kept in a bundle. */
const MAX_KEPT = 3

/** Certificates of ours in PEM text that count now and are not in `known`, without repetition; the first few of them. */
export function othersIn(text: string, known: string, now: number): string[] {
  const all = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n?/g) ?? []
  return [...new Set(all)].filter((pem) => !known.includes(pem.trim()) && counts(pem, now)).slice(0, MAX_KEPT)
}

function counts(pem: string, now: number): boolean {
  try {
    const certificate = new X509Certificate(pem)
    return isOurs(certificate) && Date.parse(certificate.validFrom) <= now && now < Date.parse(certificate.validTo)
  } catch {
    return false
  }
}

function isOurs(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.subject.includes('CN=ambassador webhook CA ')
}

/** `data` of the Secret. */
export function toSecretData(authorities: Authorities): Record<string, string> {
  const data: Record<string, string> = {}
  for (const [index, [crt, key]] of KEYS.entries()) {
    const authority = authorities[index]
    if (authority === undefined) continue
    data[crt] = Buffer.from(authority.pair.certificate).toString('base64')
    data[key] = Buffer.from(authority.pair.privateKey).toString('base64')
  }
  return data
}

/** The CAs of a Secret; empty when the newest cannot be used: not there, not parsable, key and certificate of different pairs, or no CA of ours. */
export function fromSecretData(data: Readonly<Record<string, string>> | undefined): readonly Authority[] {
  const authorities: Authority[] = []
  for (const [crt, key] of KEYS) {
    const authority = readStored(data?.[crt], data?.[key])
    if (authority === undefined) break
    authorities.push(authority)
  }
  return authorities
}

function readStored(crt: string | undefined, key: string | undefined): Authority | undefined {
  if (crt === undefined || key === undefined) return undefined
  const pair = {
    certificate: Buffer.from(crt, 'base64').toString(),
    privateKey: Buffer.from(key, 'base64').toString(),
  }
  try {
    const certificate = new X509Certificate(pair.certificate)
    return isOurs(certificate) && certificate.checkPrivateKey(createPrivateKey(pair.privateKey))
      ? read(pair)
      : undefined
  } catch {
    return undefined // whatever it is, it is no pair of ours; the caller makes a new one
  }
}

function read(pair: KeyPair): Authority {
  const { validFrom, validTo } = new X509Certificate(pair.certificate)
  return { pair, notBefore: Date.parse(validFrom), notAfter: Date.parse(validTo) }
}
