/** Secrets that a test hides in places, and looks for in everything that a program says. New ones for each run. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

export class Hidden {
  readonly #places = new Map<string, string>()

  /** Places with a secret. */
  get size(): number {
    return this.#places.size
  }

  /** A new secret for a place. Letters and digits alone, so that no encoding of text hides it. */
  hide(place: string): string {
    const secret = `z${randomBytes(12).toString('hex')}`
    assert.ok(!this.#places.has(place), place)
    this.#places.set(place, secret)
    return secret
  }

  /** The secret of a place. */
  at(place: string): string {
    return this.#places.get(place) ?? assert.fail(place)
  }

  /** The places of secrets that a text shows, plainly or in base64. */
  shownIn(text: string): string[] {
    return [...this.#places].flatMap(([place, secret]) => {
      // A secret inside other base64 begins at one of three offsets; what is certain of it is its middle.
      const encoded = ['', 'x', 'xx'].map((before) =>
        Buffer.from(before + secret)
          .toString('base64')
          .slice(4, 28),
      )
      return [secret, ...encoded].some((form) => text.includes(form)) ? [place] : []
    })
  }
}
