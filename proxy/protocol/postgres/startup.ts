/** The first bytes of an application: requests for encryption are declined, then comes its startup packet or a request to cancel. */

import type { ClientPassword } from '../../policy/credential.ts'
import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import {
  Auth,
  Back,
  CANCEL_REQUEST,
  GSSENC_REQUEST,
  HEAD_BYTES,
  MAX_STARTUP_BYTES,
  message,
  PASSWORD,
  SSL_REQUEST,
  untyped,
} from './messages.ts'
import { wrongPassword } from './respond.ts'
import { ScramServer } from './scram.ts'

export interface StartupOwner {
  /** What an application must prove that it knows; null: nothing. */
  readonly clientPassword: ClientPassword | null
  /** `packet`: the startup packet as it came; `rest`: what came behind it. The owner of the socket is the caller from here on. */
  onStartup(front: Startup, packet: Buffer, rest: Buffer): void
  /** `key`: process and secret, as a BackendKeyData has them. */
  onCancel(front: Startup, key: Buffer): void
  /** The bytes are not PostgreSQL; the connection is still open. */
  onGarbage(front: Startup, detail: string): void
  /** It has not proved its password; the connection is still open. */
  onRefused(front: Startup, response: Buffer): void
  onGone(front: Startup): void
}

/** As authentication_timeout of PostgreSQL. */
const TIMEOUT_MS = 60_000
const NO = Buffer.from('N')

const SCRAM_SHA_256 = 'SCRAM-SHA-256'
const ASK_SCRAM = message(Back.authentication, Auth.sasl, SCRAM_SHA_256, Buffer.from([0]))
/** An answer of SCRAM is far shorter. */
const MAX_PROOF_BYTES = 4096

// first   => waiting   when the client's first message came
// waiting => final     when the password is digested, which is done beside the event loop
interface Proof {
  readonly packet: Buffer
  readonly client: ClientPassword
  step: 'first' | 'waiting' | 'final'
  scram: ScramServer | null
}

export class Startup implements SocketHandler {
  readonly client: RawSocket
  readonly #owner: StartupOwner
  readonly #timer: CoarseTimer
  #bytes = Buffer.alloc(0)
  #proof: Proof | null = null

  constructor(owner: StartupOwner, makeClient: (handler: SocketHandler) => RawSocket) {
    this.#owner = owner
    this.client = makeClient(this)
    this.#timer = new CoarseTimer(() => this.client.destroy())
    this.#timer.set(now() + TIMEOUT_MS)
  }

  onData(chunk: Buffer, length: number): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, length)])
    if (this.#proof !== null) {
      this.#readProof(this.#proof)
      return
    }
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
      if (code >>> 16 === 3 && this.#owner.clientPassword !== null) {
        this.#bytes = rest
        this.#proof = { packet, client: this.#owner.clientPassword, step: 'first', scram: null }
        this.client.write(ASK_SCRAM)
        if (rest.length > 0) this.#readProof(this.#proof)
        return
      }
      this.#timer.release()
      if (code === CANCEL_REQUEST) this.#owner.onCancel(this, Buffer.from(packet.subarray(8)))
      else if (code >>> 16 === 3) this.#owner.onStartup(this, packet, rest)
      else this.#owner.onGarbage(this, `protocol ${code >>> 16}.${code & 0xffff} is not spoken, use 3.0 or 3.2`)
      return
    }
  }

  /** Takes the answer to what was asked of the application, one message at a time. */
  #readProof(proof: Proof): void {
    if (proof.step === 'waiting') {
      if (this.#bytes.length > MAX_PROOF_BYTES) this.#garbage('bytes in the middle of the login')
      return
    }
    if (this.#bytes.length < HEAD_BYTES) return
    const length = this.#bytes.readInt32BE(1)
    if (this.#bytes[0] !== PASSWORD || length < 4 || length > MAX_PROOF_BYTES) {
      this.#garbage('not an answer to a request for a password')
      return
    }
    if (this.#bytes.length <= length) return
    const body = Buffer.from(this.#bytes.subarray(HEAD_BYTES, length + 1))
    this.#bytes = this.#bytes.subarray(length + 1)
    if (proof.step === 'first') this.#beginProof(proof, body)
    else this.#endProof(proof, body)
  }

  #beginProof(proof: Proof, body: Buffer): void {
    const end = body.indexOf(0)
    if (body.toString('latin1', 0, Math.max(0, end)) !== SCRAM_SHA_256) {
      this.#garbage(`no answer by ${SCRAM_SHA_256}`)
      return
    }
    proof.step = 'waiting'
    proof.scram = new ScramServer(proof.client.password)
    proof.scram.first(body.subarray(end + 5)).then(
      (first) => {
        proof.step = 'final'
        this.client.write(message(Back.authentication, Auth.saslContinue, first))
        if (this.#bytes.length > 0) this.#readProof(proof)
      },
      (error: Error) => this.#garbage(error.message),
    )
  }

  #endProof(proof: Proof, body: Buffer): void {
    const final = proof.scram?.final(body) ?? null
    this.#timer.release()
    if (final === null) {
      const user = textOf(parametersOf(proof.packet)?.get('user') ?? '')
      this.#owner.onRefused(this, wrongPassword(user, proof.client.name))
      return
    }
    // AuthenticationOk is the server's, when it has let us in.
    this.client.write(message(Back.authentication, Auth.saslFinal, final))
    this.#owner.onStartup(this, proof.packet, this.#bytes)
  }

  #garbage(detail: string): void {
    this.#timer.release()
    this.#owner.onGarbage(this, detail)
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

/** The parameters of a startup packet, in their order and byte for byte (latin1); null when they are malformed. */
export function parametersOf(packet: Buffer): Map<string, string> | null {
  const words = packet.toString('latin1', 8).split('\0')
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
  sent.set('user', bytesOf(username))
  return encode(packet.readInt32BE(4), sent)
}

/** The database that an application means, byte for byte (latin1), as a server need not read names as UTF-8. */
export function databaseOf(parameters: ReadonlyMap<string, string>, username: string): string {
  return parameters.get('database') || parameters.get('user') || bytesOf(username)
}

/** A text as the bytes of UTF-8, one to a character (latin1). */
export function bytesOf(text: string): string {
  return Buffer.from(text).toString('latin1')
}

/** What such bytes say, for a person. */
export function textOf(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString()
}

/** A startup packet of our own, of version 3.0. @param parameters byte for byte (latin1) */
export function startupPacket(parameters: Readonly<Record<string, string>>): Buffer {
  return encode(VERSION_3, Object.entries(parameters))
}

const VERSION_3 = 3 << 16

function encode(version: number, parameters: Iterable<readonly [name: string, value: string]>): Buffer {
  const text = [...parameters].map(([name, value]) => `${name}\0${value}\0`).join('')
  return untyped(version, Buffer.from(`${text}\0`, 'latin1'))
}
