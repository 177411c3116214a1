/** A real browser for tests of pages: Debian's Chromium, without a window. */
import { type Browser, launch } from 'puppeteer-core'
import { which } from '../../build/machine/exec.ts'

/** The path of the browser; undefined: this machine has none. */
export const chromium = (): string | undefined => which('chromium')

const START_MS = 120_000

/** Starts one; `ends` gets what ends it. It asks nobody outside of this machine. */
export async function browser(ends: (() => unknown)[]): Promise<Browser> {
  const executablePath = chromium()
  if (executablePath === undefined) throw new Error('chromium is not installed, install the package')
  const started = await launch({
    executablePath,
    // It loads a hundred megabytes, which takes half a minute on a machine that is busy.
    timeout: START_MS,
    args: [
      // Its own sandbox needs what a container or root does not have; it only sees pages of ours.
      '--no-sandbox',
      '--disable-dev-shm-usage',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--no-first-run',
    ],
  })
  ends.push(() => end(started))
  return started
}

const END_MS = 15_000

/** Bounded, and whatever the browser leaves behind: a process of it that lives on has our end of its streams, which would keep this one alive. */
async function end(started: Browser): Promise<void> {
  const child = started.process()
  const kill = setTimeout(() => child?.kill('SIGKILL'), END_MS)
  try {
    await started.close()
  } finally {
    clearTimeout(kill)
    child?.stdout?.destroy()
    child?.stderr?.destroy()
    child?.unref()
  }
}
