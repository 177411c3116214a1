/** The parameters that a server reports, or tells when it is asked: what each client has set, so that it finds them on whatever connection it gets. */
import { Back, HEAD_BYTES, message } from './messages.ts'
import { RESTORABLE_PARAMETERS } from './pins.ts'

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

/** The value of a parameter that the server does not report, while it is as at the begin of the connection. */
const UNSET = '\x02'

/** What a server says at the login, taken apart. */
export class Parameters {
  /** Those that a client may set, as the server spells them: first those that it reports, then those that it is asked about. */
  readonly names: readonly string[]
  /** Those of a new connection. */
  readonly initial: Values
  /** Bits of RESTORABLE_PARAMETERS that this server does not report. */
  readonly asked: number
  /** The first number of the server's version; 0: it does not tell. */
  readonly serverVersion: number
  readonly #index: ReadonlyMap<string, number>
  /** Where those begin in `names` that are asked about. */
  readonly #reported: number
  /** The bit of each of `names`; 0: it is none of RESTORABLE_PARAMETERS. */
  readonly #bits: readonly number[]
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
    const reported = new Set(settable.map(([name]) => name.toLowerCase()))
    const asked = RESTORABLE_PARAMETERS.filter((name) => !reported.has(name))
    this.#reported = settable.length
    this.names = [...settable.map(([name]) => name), ...asked]
    this.#index = new Map(this.names.map((name, at) => [name.toLowerCase(), at]))
    this.#fixed = Buffer.concat(fixed)
    this.asked = RESTORABLE_PARAMETERS.reduce((bits, name, bit) => bits | (reported.has(name) ? 0 : 1 << bit), 0)
    this.#bits = this.names.map((name) => bitOf(name.toLowerCase()))
    this.initial = this.intern([...settable.map(([, value]) => value), ...asked.map(() => UNSET)])
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

  /** The servers of the pool are asked about it, even those that report it. */
  isAsked(name: string): boolean {
    return (bitOf(name.toLowerCase()) & this.asked) !== 0
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
    return this.intern(
      this.names.map((name, at) => {
        const value = from.valueOf(values, name.toLowerCase()) ?? UNSET
        return value === UNSET ? this.initial.list[at]! : value
      }),
    )
  }

  /** With those of some bits as in `told`. */
  merge(values: Values, told: Values, bits: number): Values {
    if (values === told) return values
    return this.intern(values.list.map((value, at) => ((this.#bits[at]! & bits) === 0 ? value : told.list[at]!)))
  }

  /** With what a server has answered to askSql() of some bits. */
  withAnswer(values: Values, bits: number, rows: readonly (readonly (string | null)[])[]): Values {
    let found = this.merge(values, this.initial, bits)
    for (const [name, value] of rows) if (name != null && value != null) found = this.with(found, name, value)
    return found
  }

  /** Whether one of those that the server is asked about is not as at the begin of the connection. */
  hasAsked(values: Values): boolean {
    const { list } = values
    for (let at = this.#reported; at < list.length; at++) if (list[at] !== UNSET) return true
    return false
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
    const resets: string[] = []
    for (const [at, name] of this.names.entries()) {
      const value = to.list[at]!
      if (from.list[at] === value) continue
      if (value === UNSET) resets.push(`reset ${name}`)
      else settings.push([name, value])
    }
    const sets = setSql(settings)
    if (resets.length === 0) return sets
    return [...resets, ...(sets === null ? [] : [sets])].join('; ')
  }

  /** ParameterStatus of each, for a client. */
  report(values: Values): Buffer {
    values.report ??= this.#reportOf(values)
    return values.report
  }

  /** ParameterStatus of those that a client has been told otherwise. */
  difference(told: Values, values: Values): Buffer {
    return Buffer.concat(
      this.#told.flatMap((name, at) => (told.list[at] === values.list[at] ? [] : [statusOf(name, values.list[at]!)])),
    )
  }

  /** Names of those that the server reports. */
  get #told(): readonly string[] {
    return this.names.slice(0, this.#reported)
  }

  #reportOf(values: Values): Buffer {
    return Buffer.concat([this.#fixed, ...this.#told.map((name, at) => statusOf(name, values.list[at]!))])
  }
}

/** Asks for parameters by their bits: a row for each that is not as at the begin of the connection, with its value in the unit of set_config(). */
export function askSql(bits: number): string {
  const names = RESTORABLE_PARAMETERS.filter((_, bit) => (bits & (1 << bit)) !== 0)
  return `select name, setting from pg_catalog.pg_settings where name operator(pg_catalog.=) any ('{${names.join()}}'::pg_catalog.text[]) and setting is distinct from reset_val`
}

function bitOf(name: string): number {
  const bit = (RESTORABLE_PARAMETERS as readonly string[]).indexOf(name)
  return bit < 0 ? 0 : 1 << bit
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
