/** The commands that wait for their replies, oldest first. It grows with a pipeline and is small again after it. */

const FEW = 8
const MANY = 1024

export class Pending {
  count = 0
  #head = 0
  #commands = new Uint16Array(FEW)
  #times = new Float64Array(FEW)
  #extras = new Int32Array(FEW)

  push(command: number, at: number, extra: number): void {
    if (this.count === this.#commands.length) this.#resize(this.count * 2)
    const slot = (this.#head + this.count++) & (this.#commands.length - 1)
    this.#commands[slot] = command
    this.#times[slot] = at
    this.#extras[slot] = extra
  }

  /** Of the oldest one; only while count is not 0. */
  get command(): number {
    return this.#commands[this.#head]!
  }

  get time(): number {
    return this.#times[this.#head]!
  }

  get extra(): number {
    return this.#extras[this.#head]!
  }

  set extra(value: number) {
    this.#extras[this.#head] = value
  }

  shift(): void {
    this.#head = (this.#head + 1) & (this.#commands.length - 1)
    if (--this.count === 0 && this.#commands.length > MANY) this.#resize(FEW)
  }

  clear(): void {
    this.count = 0
    this.#head = 0
  }

  #resize(size: number): void {
    const [commands, times, extras] = [new Uint16Array(size), new Float64Array(size), new Int32Array(size)]
    const length = this.#commands.length
    for (let i = 0; i < this.count; i++) {
      const slot = (this.#head + i) & (length - 1)
      commands[i] = this.#commands[slot]!
      times[i] = this.#times[slot]!
      extras[i] = this.#extras[slot]!
    }
    this.#head = 0
    this.#commands = commands
    this.#times = times
    this.#extras = extras
  }
}
