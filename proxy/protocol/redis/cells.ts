/** What is counted of the commands of an Ambassador: plain numbers, which metrics read. */
import { StatusCell } from '../../observe/cells.ts'
import { commands } from './commands.ts'

/** Names that get a series of their own, `other` among them. */
const MAX_NAMES = 64

export interface CommandCount {
  readonly command: string
  readonly count: number
  /** From the command's arrival to its whole reply; commands that get none are not in it. */
  readonly durations: StatusCell
}

export class RedisCells {
  /** The cell of a command by its index: the first names to come get one, the others share the one of `other`. */
  readonly #slots = new Uint8Array(commands().length)
  readonly #names = ['other']
  readonly #counts = new Float64Array(MAX_NAMES)
  readonly #durations: StatusCell[] = [new StatusCell()]

  onCommand(index: number): void {
    let slot = this.#slots[index]!
    if (slot === 0 && index !== 0) slot = this.#slotOf(index)
    this.#counts[slot] = this.#counts[slot]! + 1
  }

  onReply(index: number, durationMs: number): void {
    this.#durations[this.#slots[index]!]!.add(durationMs)
  }

  get commands(): readonly CommandCount[] {
    return this.#names.map((command, slot) => {
      return { command, count: this.#counts[slot]!, durations: this.#durations[slot]! }
    })
  }

  #slotOf(index: number): number {
    if (this.#names.length === MAX_NAMES) return 0
    this.#slots[index] = this.#names.length
    this.#names.push(commands()[index]!.name)
    this.#durations.push(new StatusCell())
    return this.#slots[index]
  }
}
