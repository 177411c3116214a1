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
  return joined(parameters.change(from, initial), setSql([...settings]))
}

function joined(...texts: (string | null)[]): string {
  return texts.filter((each) => each !== null).join('; ')
}
