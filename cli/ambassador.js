#!/usr/bin/env node
// Starts the CLI with the Node that package.json pins, whatever Node runs this file: older ones cannot read TypeScript.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { join } from 'node:path'

const MAIN = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, 'main.ts')
const NEEDED = '26.10'

/** The same major version, and not an older one: a later major version may make its sockets in another way. */
const isFit = () => {
  const [major, minor] = process.versions.node.split('.').map(Number)
  const [neededMajor, neededMinor] = NEEDED.split('.').map(Number)
  return major === neededMajor && minor >= neededMinor
}

const pinned = () => {
  const find = createRequire(import.meta.url)
  for (const name of [`node-${process.platform}-${process.arch}`, `node-bin-${process.platform}-${process.arch}`]) {
    try {
      return join(find.resolve(`${name}/package.json`), '../bin/node')
    } catch {
      // the package of another platform is not installed
    }
  }
  console.error(
    `ambassador: needs Node ${NEEDED} or a later 26, this is ${process.version}: install it, or run npm ci in the checkout`,
  )
  process.exit(2)
}

if (isFit()) {
  process.argv[1] = MAIN
  const { start } = await import('./main.ts')
  await start()
} else {
  const child = spawn(pinned(), [MAIN, ...process.argv.slice(2)], { stdio: 'inherit' })
  // A terminal sends its signals to both of us; those of a supervisor reach only this process.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0)
  })
}
