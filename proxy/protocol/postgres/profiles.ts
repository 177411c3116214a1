/** What servers made of the parameters that clients began with, so that the next client with the same needs no server to be let in. */
import type { Parameters, Values } from './parameters.ts'

/** More different ones are forgotten, all of them. */
const MAX_PROFILES = 256

/** Parameters that a client gave, by name. */
type Settings = ReadonlyMap<string, string>

export class Profiles {
  readonly #values = new Map<string, Values>()

  /** Null: no client has begun with these. The name of an application is what it is, so any will do. */
  known(settings: Settings, parameters: Parameters): Values | null {
    const name = settings.get('application_name')
    const isNameAlone = settings.size <= (name === undefined ? 0 : 1)
    const base = isNameAlone ? parameters.initial : this.#values.get(keyOf(settings))
    if (base === undefined || name === undefined) return base ?? null
    if (!/^[ -~]{0,63}$/.test(name)) return this.#values.get(keyOf(settings)) ?? null
    return parameters.with(base, 'application_name', name)
  }

  learn(settings: Settings, values: Values): void {
    if (this.#values.size > MAX_PROFILES) this.#values.clear()
    this.#values.set(keyOf(settings), values)
  }
}

function keyOf(settings: Settings): string {
  return JSON.stringify([...settings].sort())
}
