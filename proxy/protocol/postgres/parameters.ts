/** The parameters that a server reports: what each client has set, so that it finds them on whatever connection it gets. */
import { Back, HEAD_BYTES, message } from './messages.ts'
import { REPORTED_PARAMETERS } from './pins.ts'

/** Reported and not to be set. */
const FIXED = new Set([
  'in_hot_standby',
  'integer_datetimes',
  'is_superuser',
  'server_encoding',
  'server_version',
  'session_authorization',
])

/** Values of the parameters of a pool, in its order. The same values are the same object, so they are compared by identity. */
export interface Values {
  readonly list: readonly string[]
  /** See Parameters.report(). */
  report: Buffer | null
}

const MAX_INTERNED = 1024

/** What a server says at the login, taken apart. */
export class Parameters {
  /** Those that a client may set, as the server spells them. */
  readonly names: readonly string[]
  /** Those of a new connection. */
  readonly initial: Values
  /** Bits of REPORTED_PARAMETERS that this server reports. */
  readonly reported: number
  /** The first number of the server's version; 0: it does not tell. */
  readonly serverVersion: number
  readonly #index: ReadonlyMap<string, number>
  /** The others, ready to be sent. */
  readonly #fixed: Buffer
  readonly #interned = new Map<string, Values>()

  /** @param welcome from AuthenticationOk to ReadyForQuery */
  constructor(welcome: Buffer) {
    const settable: [string, string][] = []
    const fixed: Buffer[] = []
    let version = 0
    for (const { code, body, whole } of messagesOf(welcome)) {
      if (code !== Back.parameterStatus) continue
      const [name, value] = pairOf(body)
      if (name === 'server_version') version = Number.parseInt(value, 10)
      if (FIXED.has(name)) fixed.push(whole)
      else settable.push([name, value])
    }
    this.serverVersion = Number.isNaN(version) ? 0 : version
    this.names = settable.map(([name]) => name)
    this.#index = new Map(this.names.map((name, at) => [name.toLowerCase(), at]))
    this.#fixed = Buffer.concat(fixed)
    this.reported = REPORTED_PARAMETERS.reduce((bits, name, bit) => bits | (this.#index.has(name) ? 1 << bit : 0), 0)
    this.initial = this.intern(settable.map(([, value]) => value))
  }

  intern(list: readonly string[]): Values {
    const key = list.join('\0')
    const known = this.#interned.get(key)
    if (known !== undefined) return known
    if (this.#interned.size >= MAX_INTERNED) this.#interned.clear()
    const values = { list, report: null }
    this.#interned.set(key, values)
    return values
  }

  has(name: string): boolean {
    return this.#index.has(name.toLowerCase())
  }

  /** With one of them set; the same when it is none of them. */
  with(values: Values, name: string, value: string): Values {
    const at = this.#index.get(name.toLowerCase())
    if (at === undefined || values.list[at] === value) return values
    return this.intern(values.list.with(at, value))
  }

  valueOf(values: Values, name: string): string | undefined {
    const at = this.#index.get(name)
    return at === undefined ? undefined : values.list[at]
  }

  /** Values of another pool, as far as this one has the parameters. */
  translate(from: Parameters, values: Values): Values {
    if (from === this) return values
    return this.intern(this.names.map((name, at) => from.valueOf(values, name.toLowerCase()) ?? this.initial.list[at]!))
  }

  /** Of `now`, what has gone back to the begin of the connection since `before` goes back to `own`; null: all that is as at its begin. */
  reset(now: Values, own: Values, before: Values | null): Values {
    if (own === this.initial || now === before) return now
    return this.intern(
      now.list.map((value, at) => {
        return value === this.initial.list[at] && value !== before?.list[at] ? own.list[at]! : value
      }),
    )
  }

  /** SQL that makes `to` of `from`; null: nothing has to be done. */
  change(from: Values, to: Values): string | null {
    if (from === to) return null
    const settings: [string, string][] = []
    for (const [at, name] of this.names.entries()) {
      const value = to.list[at]!
      if (from.list[at] !== value) settings.push([name, value])
    }
    return setSql(settings)
  }

  /** ParameterStatus of each, for a client. */
  report(values: Values): Buffer {
    values.report ??= this.#reportOf(values)
    return values.report
  }

  /** ParameterStatus of those that a client has been told otherwise. */
  difference(told: Values, values: Values): Buffer {
    return Buffer.concat(
      this.names.flatMap((name, at) => (told.list[at] === values.list[at] ? [] : [statusOf(name, values.list[at]!)])),
    )
  }

  #reportOf(values: Values): Buffer {
    return Buffer.concat([this.#fixed, ...this.names.map((name, at) => statusOf(name, values.list[at]!))])
  }
}

function statusOf(name: string, value: string): Buffer {
  return message(Back.parameterStatus, Buffer.from(`${name}\0${value}\0`, 'latin1'))
}

/** Sets parameters for the session; null: there are none. set_config takes a list such as search_path as it is reported, SET does not. */
export function setSql(settings: readonly (readonly [string, string])[]): string | null {
  if (settings.length === 0) return null
  return `select ${settings.map(([name, value]) => `pg_catalog.set_config(${literal(name)}, ${literal(value)}, false)`).join(', ')}`
}

/** The same whatever standard_conforming_strings is. */
function literal(text: string): string {
  return `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}

/** Name and value of a ParameterStatus, byte for byte. */
export function pairOf(body: Buffer): [string, string] {
  const [name = '', value = ''] = body.toString('latin1').split('\0')
  return [name, value]
}

/** The messages of a text of whole ones. */
function messagesOf(bytes: Buffer): { readonly code: number; readonly body: Buffer; readonly whole: Buffer }[] {
  const found = []
  for (let at = 0; at + HEAD_BYTES <= bytes.length; ) {
    const end = at + 1 + bytes.readInt32BE(at + 1)
    found.push({ code: bytes[at]!, body: bytes.subarray(at + HEAD_BYTES, end), whole: bytes.subarray(at, end) })
    at = end
  }
  return found
}
