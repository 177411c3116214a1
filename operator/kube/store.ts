/** The contents of a reflector: projections by key, and indices over them. Read synchronously by anyone, written by the reflector alone. */

export interface Change<T> {
  readonly key: string
  /** Absent: new. */
  readonly before: T | undefined
  /** Absent: gone. */
  readonly after: T | undefined
}

export type IndexFunctions<T> = Readonly<Record<string, (item: T) => readonly string[]>>

/** What readers see. */
export interface ReadStore<T> {
  readonly size: number
  get(key: string): T | undefined
  values(): IterableIterator<T>
  keys(): IterableIterator<string>
  /** The items that an index function filed under `value`, in no order. @throws {Error} when no such index was declared */
  byIndex(index: string, value: string): T[]
}

export class Store<T> implements ReadStore<T> {
  readonly #items = new Map<string, T>()
  readonly #functions: IndexFunctions<T>
  readonly #indices = new Map<string, Map<string, Set<string>>>()

  constructor(functions: IndexFunctions<T> = {}) {
    this.#functions = functions
    for (const name of Object.keys(functions)) this.#indices.set(name, new Map())
  }

  get size(): number {
    return this.#items.size
  }

  get(key: string): T | undefined {
    return this.#items.get(key)
  }

  values(): IterableIterator<T> {
    return this.#items.values()
  }

  keys(): IterableIterator<string> {
    return this.#items.keys()
  }

  byIndex(index: string, value: string): T[] {
    const entries = this.#indices.get(index)
    if (entries === undefined) throw new Error(`index '${index}': not declared, pass it in the reflector's indices`)
    const found: T[] = []
    for (const key of entries.get(value) ?? []) {
      const item = this.#items.get(key)
      if (item !== undefined) found.push(item)
    }
    return found
  }

  /** Puts an item in (or, undefined, takes it out) and says what was there. */
  put(key: string, item: T | undefined): T | undefined {
    const before = this.#items.get(key)
    if (before !== undefined) this.#file(key, before, false)
    if (item === undefined) this.#items.delete(key)
    else {
      this.#items.set(key, item)
      this.#file(key, item, true)
    }
    return before
  }

  #file(key: string, item: T, isIn: boolean): void {
    for (const [name, values] of Object.entries(this.#functions)) {
      const entries = this.#indices.get(name)!
      for (const value of values(item)) {
        let keys = entries.get(value)
        if (isIn) {
          if (keys === undefined) entries.set(value, (keys = new Set()))
          keys.add(key)
        } else if (keys !== undefined) {
          keys.delete(key)
          if (keys.size === 0) entries.delete(value) // names come and go for years; empty sets must not stay
        }
      }
    }
  }
}
