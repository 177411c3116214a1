/** A DNS server for tests, on UDP and TCP of one loopback port: it answers what it is told, and can be late, truncate, lie or be silent. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { type Answer, AUTHORITATIVE_ANSWER, decode, encode, type Packet, TRUNCATED_RESPONSE } from 'dns-packet'

export interface DnsReply {
  readonly answers?: readonly Answer[]
  readonly authorities?: readonly Answer[]
  /** 0 NOERROR (default), 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED. */
  readonly rcode?: number
  /** Say nothing. */
  readonly isSilent?: boolean
  readonly isSilentOnTcp?: boolean
  readonly delayMs?: number
  /** Over UDP: no answers and the TC bit; over TCP all of them. */
  readonly isTruncated?: boolean
  /** Over UDP, beside the TC bit of `isTruncated`. Default: none. */
  readonly fitting?: readonly Answer[]
  /** Changes the bytes of the reply. */
  readonly corrupt?: (reply: Buffer) => Buffer
}

export interface DnsQuery {
  readonly name: string
  readonly type: string
  readonly via: 'udp' | 'tcp'
  /** UDP payload size of the EDNS record; null without one. */
  readonly ednsSize: number | null
  readonly sourcePort: number
}

export class DnsServer {
  readonly host: string
  readonly port: number
  /** Every question that came, the oldest first. */
  readonly queries: DnsQuery[] = []
  /** Asked when no reply is set for a name and type. Default: NXDOMAIN for an unknown name, no records for a known one. */
  fallback: (query: DnsQuery) => DnsReply = (query) => ({ rcode: this.#names.has(query.name) ? 0 : 3 })
  readonly #replies = new Map<string, DnsReply>()
  readonly #names = new Set<string>()
  readonly #udp: UdpSocket
  readonly #tcp: Server
  readonly #connections = new Set<Socket>()
  readonly #timers = new Set<NodeJS.Timeout>()

  private constructor(host: string, udp: UdpSocket, tcp: Server) {
    this.host = host
    this.port = (tcp.address() as AddressInfo).port
    this.#udp = udp
    this.#tcp = tcp
    udp.on('message', (message, from) => this.#onUdp(message, from))
    tcp.on('connection', (socket) => this.#onTcp(socket))
  }

  /** Listens on a free port, or on the given one (another nameserver of the same resolv.conf has the same port). */
  static async start(options: { host?: string; port?: number } = {}): Promise<DnsServer> {
    const { host = '127.0.0.1', port = 0 } = options
    for (let tries = 1; ; tries++) {
      const tcp = createServer()
      const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4')
      try {
        tcp.listen(port, host)
        await once(tcp, 'listening')
        udp.bind((tcp.address() as AddressInfo).port, host)
        await once(udp, 'listening')
        return new DnsServer(host, udp, tcp)
      } catch (error) {
        // The port that TCP found free may be taken on UDP.
        tcp.close()
        udp.close()
        if (port !== 0 || tries === 10) throw error
      }
    }
  }

  /** Answers a question with this from now on. */
  reply(name: string, type: string, reply: DnsReply): void {
    this.#names.add(name)
    this.#replies.set(`${name} ${type}`, reply)
  }

  /** The A and AAAA records of a name from now on. */
  addresses(name: string, ips: readonly string[], ttl = 60): void {
    for (const type of ['A', 'AAAA'] as const) {
      const of = ips.filter((ip) => ip.includes(':') === (type === 'AAAA'))
      this.reply(name, type, { answers: of.map((data) => ({ type, name, ttl, data })) })
    }
  }

  /** The SRV records of a name from now on: `[priority, weight, port, target]`. */
  services(name: string, records: readonly (readonly [number, number, number, string])[], ttl = 60): void {
    const answers = records.map(([priority, weight, port, target]) => {
      return { type: 'SRV' as const, name, ttl, data: { priority, weight, port, target } }
    })
    this.reply(name, 'SRV', { answers })
  }

  /** Forgets a name: NXDOMAIN. */
  forget(name: string): void {
    this.#names.delete(name)
    for (const key of [...this.#replies.keys()]) if (key.startsWith(`${name} `)) this.#replies.delete(key)
  }

  /** Nobody listens on TCP any more, as behind a firewall that knows DNS as UDP. */
  async refuseTcp(): Promise<void> {
    const closed = once(this.#tcp, 'close')
    for (const socket of this.#connections) socket.destroy()
    this.#tcp.close()
    await closed
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer)
    for (const socket of this.#connections) socket.destroy()
    const closed = once(this.#udp, 'close')
    this.#udp.close()
    if (this.#tcp.listening) await this.refuseTcp()
    await closed
  }

  #onUdp(message: Buffer, from: RemoteInfo): void {
    this.#answer(message, 'udp', from.port, (bytes) => this.#udp.send(bytes, from.port, from.address))
  }

  #onTcp(socket: Socket): void {
    this.#connections.add(socket)
    let received = Buffer.alloc(0)
    socket.on('close', () => this.#connections.delete(socket))
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const length = received.readUInt16BE(0)
        const message = received.subarray(2, 2 + length)
        received = received.subarray(2 + length)
        this.#answer(message, 'tcp', socket.remotePort ?? 0, (bytes) => {
          const prefix = Buffer.alloc(2)
          prefix.writeUInt16BE(bytes.length)
          socket.write(Buffer.concat([prefix, bytes]))
        })
      }
    })
  }

  #answer(message: Buffer, via: 'udp' | 'tcp', sourcePort: number, send: (bytes: Buffer) => void): void {
    const request = decode(message)
    const question = request.questions?.[0]
    if (question === undefined) return
    const opt = request.additionals?.find((record) => record.type === 'OPT')
    const ednsSize = opt !== undefined && 'udpPayloadSize' in opt ? opt.udpPayloadSize : null
    const query: DnsQuery = { name: question.name, type: question.type, via, ednsSize, sourcePort }
    this.queries.push(query)
    const reply = this.#replies.get(`${query.name} ${query.type}`) ?? this.fallback(query)
    if (reply.isSilent || (reply.isSilentOnTcp && via === 'tcp')) return
    const cut = reply.isTruncated === true && via === 'udp'
    const packet: Packet = {
      type: 'response',
      id: request.id,
      flags: AUTHORITATIVE_ANSWER | (cut ? TRUNCATED_RESPONSE : 0) | (reply.rcode ?? 0),
      questions: request.questions,
      answers: [...((cut ? reply.fitting : reply.answers) ?? [])],
      authorities: [...(reply.authorities ?? [])],
    }
    const bytes = reply.corrupt === undefined ? encode(packet) : reply.corrupt(encode(packet))
    if (reply.delayMs === undefined) {
      send(bytes)
      return
    }
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      send(bytes)
    }, reply.delayMs)
    this.#timers.add(timer)
  }
}
