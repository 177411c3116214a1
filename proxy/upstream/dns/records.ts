/** Reads what was asked for out of an answer of DNS: addresses, or the records that say where a service is. */
import { isIP } from 'node:net'
import type { Answer, DecodedPacket } from 'dns-packet'
import { type DnsQuestion, Rcode } from './exchange.ts'

/** What one type of record of one full name came to. */
export type Records<T> =
  | { readonly kind: 'found'; readonly values: readonly T[]; readonly ttlMs: number }
  | { readonly kind: 'none'; readonly isNameUnknown: boolean }
  /** `why` is the rest of a sentence about the nameserver. */
  | { readonly kind: 'failed'; readonly why: string; readonly isTimeout: boolean }

/** One target of a service (RFC 2782). */
export interface SrvRecord {
  /** 0 is used first. */
  readonly priority: number
  /** Share among the targets of one priority; 0: hardly any while others have more. */
  readonly weight: number
  readonly port: number
  /** A name without a dot at its end, in lower case. */
  readonly target: string
}

/** Reads an answer of the type that was asked for. */
export type ReadRecords<T> = (packet: DecodedPacket, rcode: number, question: DnsQuestion) => Records<T>

const MAX_CNAMES = 16

/** The addresses of an answer to a question for A or AAAA. */
export const readAddresses: ReadRecords<string> = (packet, rcode, question) =>
  readRecords(packet, rcode, question, (answer) => {
    if (answer.type !== 'A' && answer.type !== 'AAAA') return null
    // The unspecified address is what filters answer for a name that they block; dialled, it is this pod itself.
    return isIP(answer.data) === 0 || answer.data === '0.0.0.0' || answer.data === '::' ? null : answer.data
  })

/**
 * The targets of an answer to a question for SRV. RFC 2782: the target `.` says that there is no such service. One that is no host
 * name (RFC 1123 section 2.1, and underscores) is passed over: in DNS a name may have any byte, and this one goes into `Host`.
 */
export const readServices: ReadRecords<SrvRecord> = (packet, rcode, question) =>
  readRecords(packet, rcode, question, (answer) => {
    if (answer.type !== 'SRV') return null
    const { priority = 0, weight = 0, port, target } = answer.data
    const name = target.replace(/\.$/, '').toLowerCase()
    return port === 0 || !(HOST_NAME.test(name) || isIP(name) !== 0) ? null : { priority, weight, port, target: name }
  })

const HOST_NAME = /^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*$/

/** Goes along the aliases of the name and reads its records; `read` gives null for one that cannot be used. */
function readRecords<T>(
  packet: DecodedPacket,
  rcode: number,
  question: DnsQuestion,
  read: (answer: Answer) => T | null,
): Records<T> {
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
  const values: T[] = []
  for (const answer of answers) {
    if (answer.type !== question.type || answer.name.toLowerCase() !== owner) continue
    const value = read(answer)
    if (value === null) continue
    values.push(value)
    if ('ttl' in answer) ttl = Math.min(ttl, answer.ttl ?? 0)
  }
  if (values.length > 0) return { kind: 'found', values, ttlMs: ttl * 1000 }
  return { kind: 'none', isNameUnknown: rcode === Rcode.nameError }
}

const RCODE_NAMES: Readonly<Record<string, string>> = {
  formatError: 'FORMERR',
  serverFailure: 'SERVFAIL',
  notImplemented: 'NOTIMP',
  refused: 'REFUSED',
}
