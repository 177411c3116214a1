/** Short progress lines for a person, on the standard error, so that the standard output stays for results. */

/** Says what is done and how long it took. */
export interface Progress {
  /** Runs `work` and prints one line with its time; `slow` says beforehand what to expect of a step that takes minutes. */
  step<T>(what: string, work: () => Promise<T>, slow?: string): Promise<T>
  note(text: string): void
}

/** Prints to the standard error. */
export const printed = (write: (line: string) => void = (line) => process.stderr.write(`${line}\n`)): Progress => ({
  async step(what, work, slow) {
    if (slow !== undefined) write(`        … ${what}: ${slow}`)
    const start = performance.now()
    try {
      const result = await work()
      write(`${seconds(performance.now() - start)}  ${what}`)
      return result
    } catch (error) {
      write(`${seconds(performance.now() - start)}  ${what}: FAILED`)
      throw error
    }
  },
  note: (text) => write(`          ${text}`),
})

/** Says nothing. */
export const silent: Progress = { step: (_what, work) => work(), note: () => {} }

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`.padStart(8)
