/** One question to one nameserver: over UDP from a fresh socket, over TCP when the answer is cut short. */
import { connect } from 'node:net'
import { type DecodedPacket, decode, encode, RECURSION_DESIRED, type RecordType } from 'dns-packet'
import { CoarseTimer } from '../../runtime/timers.ts'

export interface Nameserver {
  readonly host: string
  readonly port: number
}

export interface DnsQuestion {
  readonly name: string
  readonly type: RecordType
}

/** RFC 1035 section 4.1.1. */
export const Rcode = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
} as const

/** A message that answers the question, whatever it says; or why there is none, as the rest of a sentence about the nameserver. */
export type DnsReply =
  | { readonly ok: true; readonly packet: DecodedPacket; readonly rcode: number }
  | { readonly ok: false; readonly why: string }

/** Payload that no network fragments (DNS flag day 2020). */
const EDNS_PAYLOAD = 1232

/**
 * Asks, and never throws. Each question has a socket of its own: its port is as hard to guess as its id, and a nameserver whose
 * address now belongs to another machine cannot leave it stuck.
 * @param timeoutMs for UDP and TCP together
 */
export async function askNameserver(
  question: DnsQuestion,
  server: Nameserver,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<DnsReply> {
  const late = new AbortController()
  // Not AbortSignal.timeout(): that does not read what came while the process stood still before it fires.
  const timer = new CoarseTimer(() => late.abort())
  timer.set(performance.now() + timeoutMs)
  const deadline = AbortSignal.any([signal, late.signal])
  const ask = async (edns: boolean): Promise<DnsReply> => {
    const overUdp = await exchange(question, edns, deadline, timeoutMs, () => udp(server, deadline))
    if (!overUdp.ok || !overUdp.packet.flag_tc) return overUdp
    const overTcp = await exchange(question, edns, deadline, timeoutMs, () => tcp(server))
    // Firewalls that know DNS as UDP are many: the records that came are better than none. A CNAME alone says nothing of them.
    const hasSome = overUdp.packet.answers?.some(({ type }) => type === question.type) === true
    return overTcp.ok || !hasSome ? overTcp : overUdp
  }
  try {
    const reply = await ask(true)
    // RFC 6891 section 7: a nameserver that does not know EDNS says so in this way.
    const unknown = reply.ok && (reply.rcode === Rcode.formatError || reply.rcode === Rcode.notImplemented)
    return unknown ? await ask(false) : reply
  } finally {
    timer.release()
  }
}

/** A way to send one query; calls `accept` with each message that comes until that returns true, or `fail`. */
interface Channel {
  accept: (message: Buffer) => boolean
  fail: (why: string) => void
  send(query: Buffer): void
  close(): void
}

function exchange(
  question: DnsQuestion,
  edns: boolean,
  deadline: AbortSignal,
  timeoutMs: number,
  open: () => Channel,
): Promise<DnsReply> {
  return new Promise((resolve) => {
    const id = process.getBuiltinModule('node:crypto').randomInt(65536)
    const query = encode({
      type: 'query',
      id,
      flags: RECURSION_DESIRED,
      questions: [{ type: question.type, name: question.name, class: 'IN' }],
      additionals: edns ? [ednsRecord()] : [],
    })
    let isDamaged = false
    const why = () => `did not answer within ${timeoutMs} ms${isDamaged ? ', or not in a way that can be read' : ''}`
    if (deadline.aborted) {
      resolve({ ok: false, why: why() })
      return
    }
    const channel = open()
    const onDeadline = () => finish({ ok: false, why: why() })
    const finish = (reply: DnsReply) => {
      deadline.removeEventListener('abort', onDeadline)
      channel.close()
      resolve(reply)
    }
    deadline.addEventListener('abort', onDeadline)
    channel.fail = (why) => finish({ ok: false, why })
    channel.accept = (message) => {
      const packet = decodeReply(message, id, question)
      // Anything else on this port is late, damaged or forged: the true answer may still come.
      if (packet === null) {
        isDamaged ||= message.length >= 2 && message.readUInt16BE(0) === id
        return false
      }
      finish({ ok: true, packet, rcode: (packet.flags ?? 0) & 0xf })
      return true
    }
    channel.send(query)
  })
}

function udp(server: Nameserver, deadline: AbortSignal): Channel {
  const socket = process.getBuiltinModule('node:dgram').createSocket(server.host.includes(':') ? 'udp6' : 'udp4')
  let isOpen = true
  const channel: Channel = {
    accept: () => false,
    fail: () => {},
    send: (query) => {
      // Connected: the kernel drops what others send, and reports a port that nobody listens on.
      socket.connect(server.port, server.host, () => {
        if (isOpen && !deadline.aborted) socket.send(query)
      })
    },
    close: () => {
      if (isOpen) socket.close()
      isOpen = false
    },
  }
  socket.on('message', (message) => channel.accept(message))
  socket.on('error', (error: NodeJS.ErrnoException) => channel.fail(`cannot be asked (${error.code})`))
  return channel
}

function tcp(server: Nameserver): Channel {
  const socket = connect({ host: server.host, port: server.port, noDelay: true })
  let received: Buffer = Buffer.alloc(0)
  const channel: Channel = {
    accept: () => false,
    fail: () => {},
    send: (query) => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(query.length)
      socket.write(Buffer.concat([length, query]))
    },
    close: () => socket.destroy(),
  }
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      const end = 2 + received.readUInt16BE(0)
      if (channel.accept(received.subarray(2, end))) return
      received = received.subarray(end)
    }
  })
  socket.on('end', () => channel.fail('closed the connection before it answered'))
  socket.on('error', (error: NodeJS.ErrnoException) => channel.fail(`cannot be asked over TCP (${error.code})`))
  return channel
}

/** The message when it is the answer to this question (RFC 5452 section 9.1); null when it is not, or cannot be read. */
function decodeReply(message: Buffer, id: number, question: DnsQuestion): DecodedPacket | null {
  try {
    const packet = decodeMessage(message)
    const asked = packet.questions?.[0]
    if (packet.type !== 'response' || packet.id !== id) return null
    // A nameserver that could not read the question, as one of before EDNS, may leave it out: then it is an error and nothing else.
    const rcode = (packet.flags ?? 0) & 0xf
    if (asked === undefined) return rcode === Rcode.noError || rcode === Rcode.nameError ? null : packet
    if (packet.questions?.length !== 1) return null
    if (asked?.type !== question.type || asked.name.toLowerCase() !== question.name.toLowerCase()) return null
    return packet
  } catch {
    return null
  }
}

const HEADER_BYTES = 12
const TRUNCATED = 0x02

/**
 * RFC 2181 section 9 wants an answer cut between two sets of records, but some are cut in the middle of one: then what is left of
 * the records is passed over, since all of them are asked for over TCP.
 * @throws when it cannot be read
 */
function decodeMessage(message: Buffer): DecodedPacket {
  try {
    return decode(message)
  } catch (error) {
    if (message.length < HEADER_BYTES || (message[2]! & TRUNCATED) === 0) throw error
    // The counts of the three lists of records, RFC 1035 section 4.1.1.
    return decode(Buffer.from(message).fill(0, 6, HEADER_BYTES))
  }
}

function ednsRecord() {
  return {
    type: 'OPT' as const,
    name: '.',
    udpPayloadSize: EDNS_PAYLOAD,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  }
}
