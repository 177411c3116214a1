/** What one Sentinel says, read from its replies: pure. */
import { isIP } from 'node:net'
import { type Reply, ReplyError } from './resp.ts'

/** A server as a Sentinel names it: an address, or the name that it announces. */
export interface Place {
  readonly host: string
  readonly port: number
}

/** Another Sentinel that it knows. */
export interface KnownSentinel extends Place {
  readonly id: string
}

/** The answers of one Sentinel, as of one moment. */
export interface SentinelView {
  /** Null: it does not know the master by this name. */
  readonly master: Place | null
  readonly sentinels: readonly KnownSentinel[]
  /** Those with a link to the master that it does not think down; empty unless they were asked for. */
  readonly replicas: readonly Place[]
}

/** How a place is written, so that two answers can be compared. */
export function placeName({ host, port }: Place): string {
  return `${isIP(host) === 6 ? `[${host}]` : host.toLowerCase()}:${port}`
}

/** The answer to SENTINEL GET-MASTER-ADDR-BY-NAME; undefined: it is none. */
export function masterOf(reply: Reply): Place | null | undefined {
  if (reply === null) return null
  return Array.isArray(reply) ? placeOf(reply[0], reply[1]) : undefined
}

/** The answer to SENTINEL SENTINELS; what cannot be read in it is passed over. */
export function sentinelsOf(reply: Reply): KnownSentinel[] {
  return entriesOf(reply).flatMap((fields) => {
    const place = placeOf(fields.get('ip'), fields.get('port'))
    const id = fields.get('runid') ?? ''
    return place === undefined || id === '' ? [] : [{ ...place, id }]
  })
}

const DOWN = ['s_down', 'o_down', 'disconnected']

/** The replicas of an answer to SENTINEL REPLICAS that can be used. */
export function replicasOf(reply: Reply): Place[] {
  return entriesOf(reply).flatMap((fields) => {
    const place = placeOf(fields.get('ip'), fields.get('port'))
    const flags = (fields.get('flags') ?? '').split(',')
    const isUp = fields.get('master-link-status') === 'ok' && !DOWN.some((flag) => flags.includes(flag))
    return place !== undefined && isUp ? [place] : []
  })
}

/** The names of an answer to SENTINEL MASTERS. */
export function namesOf(reply: Reply): string[] {
  return entriesOf(reply).flatMap((fields) => fields.get('name') ?? [])
}

/** What is wrong with an answer, for a person; null: nothing. */
export function refusalOf(reply: Reply): string | null {
  if (!(reply instanceof ReplyError)) return null
  if (reply.code === 'NOAUTH') return 'needs a credential: set sentinel.auth'
  if (/^ERR unknown command/i.test(reply.text)) {
    return `is not a Sentinel, it answers: ${reply.text.slice(0, 80)}; use the port of a Sentinel, 26379 as a rule`
  }
  return `answered with: ${reply.text.slice(0, 200)}`
}

/** Lists of fields and values, as RESP2 writes maps. */
function entriesOf(reply: Reply): ReadonlyMap<string, string>[] {
  if (!Array.isArray(reply)) return []
  return reply.map((entry: Reply) => {
    const fields = new Map<string, string>()
    if (Array.isArray(entry)) {
      for (let at = 0; at + 1 < entry.length; at += 2) fields.set(String(entry[at]), String(entry[at + 1]))
    }
    return fields
  })
}

const HOST = /^[0-9a-z_]([-0-9a-z_.:]{0,251}[0-9a-z_.:])?$/i

function placeOf(host: Reply | undefined, port: Reply | undefined): Place | undefined {
  if (typeof host !== 'string' || !HOST.test(host) || !/^\d{1,5}$/.test(String(port))) return undefined
  const number = Number(port)
  return number >= 1 && number <= 65535 ? { host, port: number } : undefined
}

/** An event of a Sentinel that concerns one master. */
export interface SentinelEvent {
  readonly channel: string
  /** What it is about: a `master`, `slave` or `sentinel`; with +switch-master the new master. */
  readonly subject: string
  /** Where that is; null when it cannot be read. */
  readonly place: Place | null
}

/** The event in a message of a channel; null when it is none, or of another master. */
export function eventOf(message: Reply, masterName: string): SentinelEvent | null {
  const [, channel, text] = Array.isArray(message) ? message : []
  if (typeof channel !== 'string' || typeof text !== 'string') return null
  const words = text.split(' ')
  if (channel === '+switch-master') {
    if (words[0] !== masterName) return null
    return { channel, subject: 'master', place: placeOf(words[3], words[4]) ?? null }
  }
  const at = words.indexOf('@')
  const name = words[0] === 'master' ? words[1] : words[at + 1]
  if (name !== masterName || (words[0] !== 'master' && at < 0)) return null
  return { channel, subject: words[0] ?? '', place: placeOf(words[2], words[3]) ?? null }
}
