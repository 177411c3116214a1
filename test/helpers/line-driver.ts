/** A fake driver: it answers each line that it is sent with what it would serve the next request by. Real sockets, no protocol. */
import type { Socket } from 'node:net'
import type { Snapshot } from '../../proxy/config/compile.ts'
import type { Accepted } from '../../proxy/runtime/listen.ts'
import type { OnTrouble, SnapshotDriver } from '../../proxy/served.ts'
import { socketOf } from './serving.ts'

/** The answer to one line. */
export interface LineAnswer {
  readonly name: string
  readonly hash: string
  readonly protocol: string
  readonly credential: string | null
  /** Whether TLS is wanted, and usable. */
  readonly tls: 'off' | 'ready' | 'failed'
  /** Tells clusters apart that were made anew. */
  readonly clusterId: number
  /** Tells contexts apart that were made anew. */
  readonly contextId: number
}

const ids = new WeakMap<object, number>()
let nextId = 0

function idOf(object: object): number {
  const known = ids.get(object)
  if (known !== undefined) return known
  ids.set(object, ++nextId)
  return nextId
}

export class LineDriver implements SnapshotDriver {
  #snapshot: Snapshot
  readonly #sockets = new Set<Socket>()
  /** Sockets that sent `hold` and wait for `release`: the ones in the middle of work. */
  readonly #held = new Set<Socket>()
  #isDraining = false
  #idle: (() => void)[] = []
  readonly trouble: OnTrouble

  constructor(snapshot: Snapshot, trouble: OnTrouble) {
    this.#snapshot = snapshot
    this.trouble = trouble
  }

  update(snapshot: Snapshot): void {
    this.#snapshot = snapshot
  }

  get open(): number {
    return this.#sockets.size
  }

  get busy(): number {
    return this.#held.size
  }

  readonly answers = {}
  readonly counts = null

  serve(accepted: Accepted): void {
    const socket = socketOf(accepted)
    this.#sockets.add(socket)
    socket.on('data', (chunk) => {
      for (const line of chunk.toString().split('\n').filter(Boolean)) this.#onLine(socket, line)
    })
    socket.on('end', () => socket.end())
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#held.delete(socket)
      if (this.#sockets.size === 0) for (const done of this.#idle.splice(0)) done()
    })
    socket.resume()
  }

  #onLine(socket: Socket, line: string): void {
    if (line === 'hold') {
      this.#held.add(socket)
      socket.write('held\n')
      return
    }
    if (line === 'release') this.#held.delete(socket)
    if (line.startsWith('trouble ')) this.trouble('connect_refused', line.slice('trouble '.length))
    const { config, clusters } = this.#snapshot
    const [first] = clusters
    const tls = first?.cluster.tls ?? null
    const answer: LineAnswer = {
      name: config.ambassador.name,
      hash: config.hash,
      protocol: config.protocol,
      credential: first?.credential?.line?.toString() ?? null,
      tls: tls === null ? 'off' : tls.context === null ? 'failed' : 'ready',
      clusterId: first === undefined ? 0 : idOf(first.cluster),
      contextId: tls?.context ? idOf(tls.context) : 0,
    }
    socket.write(`${JSON.stringify(answer)}\n`)
    if (this.#isDraining && !this.#held.has(socket)) socket.end()
  }

  drain(): Promise<void> {
    this.#isDraining = true
    for (const socket of this.#sockets) if (!this.#held.has(socket)) socket.destroy()
    if (this.#sockets.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}
