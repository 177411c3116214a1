/** How the demo tells what it does: headings, sentences, and claims that must hold. */
import { styleText } from 'node:util'
import { dump } from 'js-yaml'
import type { PatchOperation } from '../../operator/webhook/patch.ts'

export class Story {
  #failed = 0
  #held = 0
  readonly #write: (line: string) => void

  constructor(write: (line: string) => void = (line) => console.log(line)) {
    this.#write = write
  }

  get failed(): number {
    return this.#failed
  }

  get held(): number {
    return this.#held
  }

  heading(text: string): void {
    this.#write(`\n${styleText('bold', text)}`)
  }

  say(text: string): void {
    this.#write(`  ${text}`)
  }

  /** Something that was measured and must be so. */
  claim(holds: boolean, text: string): void {
    if (holds) this.#held++
    else this.#failed++
    this.#write(`  ${holds ? styleText('green', '✔') : styleText('red', '✘ does not hold:')} ${text}`)
  }

  /** A JSON patch as people read one: what is added in green, what goes in red. */
  patch(operations: readonly PatchOperation[]): void {
    for (const operation of operations) {
      this.#write(`  ${styleText('gray', `${operation.op} ${operation.path}`)}`)
      if (operation.op === 'remove') this.#write(`  ${styleText('red', `- ${operation.path}`)}`)
      else {
        const text = dump(operation.value, { lineWidth: 100, noRefs: true, flowLevel: 3 }).trimEnd()
        for (const line of text.split('\n')) this.#write(`  ${styleText('green', `+ ${line}`)}`)
      }
    }
  }
}

/** `12 ms`, `1.2 s`. */
export function duration(ms: number): string {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}
