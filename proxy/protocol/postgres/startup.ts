/** The first bytes of an application: requests for encryption are declined, then comes its startup packet or a request to cancel. */

import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { CANCEL_REQUEST, GSSENC_REQUEST, MAX_STARTUP_BYTES, SSL_REQUEST, untyped } from './messages.ts'

export interface StartupOwner {
  /** `packet`: the startup packet as it came; `rest`: what came behind it. The owner of the socket is the caller from here on. */
  onStartup(front: Startup, packet: Buffer, rest: Buffer): void
  /** `key`: process and secret, as a BackendKeyData has them. */
  onCancel(front: Startup, key: Buffer): void
  /** The bytes are not PostgreSQL; the connection is still open. */
  onGarbage(front: Startup, detail: string): void
  onGone(front: Startup): void
}

/** As authentication_timeout of PostgreSQL. */
const TIMEOUT_MS = 60_000
const NO = Buffer.from('N')

export class Startup implements SocketHandler {
  readonly client: RawSocket
  readonly #owner: StartupOwner
  readonly #timer: CoarseTimer
  #bytes = Buffer.alloc(0)

  constructor(owner: StartupOwner, makeClient: (handler: SocketHandler) => RawSocket) {
    this.#owner = owner
    this.client = makeClient(this)
    this.#timer = new CoarseTimer(() => this.client.destroy())
    this.#timer.set(now() + TIMEOUT_MS)
  }

  onData(chunk: Buffer, length: number): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, length)])
    while (this.#bytes.length >= 8) {
      const size = this.#bytes.readInt32BE(0)
      const code = this.#bytes.readInt32BE(4)
      if (size < 8 || size > MAX_STARTUP_BYTES) {
        this.#timer.release()
        this.#owner.onGarbage(this, `a startup packet of ${size} bytes, it has 8 to ${MAX_STARTUP_BYTES}`)
        return
      }
      if (this.#bytes.length < size) return
      const packet = this.#bytes.subarray(0, size)
      const rest = this.#bytes.subarray(size)
      if ((code === SSL_REQUEST || code === GSSENC_REQUEST) && size === 8) {
        this.#bytes = rest
        this.client.write(NO)
        continue
      }
      this.#timer.release()
      if (code === CANCEL_REQUEST) this.#owner.onCancel(this, Buffer.from(packet.subarray(8)))
      else if (code >>> 16 === 3) this.#owner.onStartup(this, packet, rest)
      else this.#owner.onGarbage(this, `protocol ${code >>> 16}.${code & 0xffff} is not spoken, use 3.0 or 3.2`)
      return
    }
  }

  onDrain(): void {}

  onEnd(): void {
    this.client.destroy()
  }

  onClose(): void {
    this.#timer.release()
    this.#owner.onGone(this)
  }
}

/** The parameters of a startup packet, in their order; null when they are malformed. */
export function parametersOf(packet: Buffer): Map<string, string> | null {
  const words = packet.toString('utf8', 8).split('\0')
  // Pairs, an empty name at the end, and what split() leaves behind the last NUL.
  if (words.length % 2 !== 0 || words.at(-1) !== '' || words.at(-2) !== '') return null
  const parameters = new Map<string, string>()
  for (let at = 0; at < words.length - 2; at += 2) {
    const name = words[at]!
    if (name === '') return null
    parameters.set(name, words[at + 1]!)
  }
  return parameters
}

/** The startup packet that we send: the same with our user. A database that is not named is the one named like the application's user. */
export function startupFor(packet: Buffer, parameters: ReadonlyMap<string, string>, username: string): Buffer {
  const sent = new Map(parameters)
  sent.set('database', databaseOf(parameters, username))
  sent.set('user', username)
  return encode(packet.readInt32BE(4), sent)
}

/** The database that an application means. */
export function databaseOf(parameters: ReadonlyMap<string, string>, username: string): string {
  return parameters.get('database') || parameters.get('user') || username
}

/** A startup packet of our own, of version 3.0. */
export function startupPacket(parameters: Readonly<Record<string, string>>): Buffer {
  return encode(VERSION_3, Object.entries(parameters))
}

const VERSION_3 = 3 << 16

function encode(version: number, parameters: Iterable<readonly [name: string, value: string]>): Buffer {
  const text = [...parameters].map(([name, value]) => `${name}\0${value}\0`).join('')
  return untyped(version, Buffer.from(`${text}\0`))
}
