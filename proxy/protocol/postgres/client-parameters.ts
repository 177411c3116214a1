/** The parameters that the server reports as one client has them: it finds them on every connection that it gets. */
import { type Parameters, setSql, type Values } from './parameters.ts'

export class ClientParameters {
  /** As they are now; null: the client was not let in yet. */
  values: Values | null = null
  /** What it was let in with. */
  #own: Values | null = null
  /** As they were when the server owed nothing for the last time. */
  #settled: Values | null = null
  /** Of the pool that the values are of. */
  #parameters: Parameters | null = null

  begin(values: Values, parameters: Parameters): void {
    this.values = values
    this.#own = values
    this.#settled = values
    this.#parameters = parameters
  }

  /** The pool may be another one since the configuration has changed. */
  translate(parameters: Parameters): void {
    const before = this.#parameters!
    if (before === parameters) return
    this.values = parameters.translate(before, this.values!)
    this.#own = parameters.translate(before, this.#own!)
    this.#settled = this.values
    this.#parameters = parameters
  }

  /** The connection began with the same as this client, so what it says of a reset is so. */
  get isAsConnection(): boolean {
    return this.#own === null || this.#own === this.#parameters!.initial
  }

  /**
   * What the session began with is what this client began with, not what the connection did.
   * @param reported what the server has made of them
   * @param isAll all of them were reset, and not only those that have changed by it
   * @returns whether the client has others now than the server
   */
  reset(reported: Values, parameters: Parameters, isAll: boolean): boolean {
    if (this.#own === null) return false
    this.values = parameters.reset(reported, this.#own, isAll ? null : this.#settled)
    return this.values !== reported
  }

  /** A connection was asked for what it does not report. @param bits of what that is */
  hear(told: Values, bits: number): void {
    this.values = this.#parameters!.merge(this.values!, told, bits)
  }

  /** The server owes nothing: what it reports from here on was not set before. */
  settle(): void {
    this.#settled = this.values
  }

  /**
   * SQL that gives them to a connection; empty: nothing has to be done.
   * @param from as the connection has them
   * @param isSequences it also forgets sequences, which another client has used
   */
  restore(from: Values, isSequences: boolean): string {
    return joined(isSequences ? 'discard sequences' : null, this.#parameters!.change(from, this.values!))
  }
}

/** SQL that begins a connection for a client: parameters of its startup packet, over those of a new connection. */
export function beginSql(
  parameters: Parameters,
  from: Values,
  initial: Values,
  settings: ReadonlyMap<string, string>,
): string {
  const given = [...settings].map(([name, value]): [string, string] => {
    return [name, name === 'application_name' ? asciiOf(value, parameters.serverVersion) : value]
  })
  return joined(parameters.change(from, initial), setSql(given))
}

/** A name that is no UTF-8 can be in no SQL: then it is as the server itself makes it of a startup packet (pg_clean_ascii). */
function asciiOf(name: string, serverVersion: number): string {
  const { isUtf8 } = process.getBuiltinModule('node:buffer')
  if (isUtf8(Buffer.from(name, 'latin1'))) return name
  return name.replace(/[^ -~]/g, (byte) => {
    return serverVersion < 16 ? '?' : `\\x${byte.charCodeAt(0).toString(16).padStart(2, '0')}`
  })
}

function joined(...texts: (string | null)[]): string {
  return texts.filter((each) => each !== null).join('; ')
}
