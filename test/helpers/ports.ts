/** Ports that are free on this machine now, and that no other test of this machine is about to use. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Below the ports that a kernel gives to outgoing connections and to `listen(0)`: any process may take one of those at any moment. */
const FIRST = 12_000
const COUNT = 16_000

/** A file for each port that was given, with the process that got it: test files run at the same time, and listen only some time later. */
const CLAIMS = join(tmpdir(), 'ambassador-test-ports')

const given = new Set<number>()

/** A port that nothing listens on, on either family, and that no earlier call gave to this process or to another one that lives. */
export async function freePort(): Promise<number> {
  if (given.size === 0) {
    mkdirSync(CLAIMS, { recursive: true })
    process.once('exit', () => {
      for (const port of given) rmSync(join(CLAIMS, String(port)), { force: true })
    })
  }
  for (;;) {
    const port = FIRST + Math.floor(COUNT * Math.random())
    if (given.has(port) || !isClaimed(port)) continue
    given.add(port)
    if (await isFree(port)) return port
  }
}

/** Whether the port is this process's now. */
function isClaimed(port: number): boolean {
  const file = join(CLAIMS, String(port))
  try {
    writeFileSync(file, String(process.pid), { flag: 'wx' })
    return true
  } catch (error) {
    // Where nobody may write there are no claims to keep to.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return true
    if (!hasOwner(file)) rmSync(file, { force: true })
    return false
  }
}

/** Whether the process that wrote the file lives; one that was killed has not removed it. */
function hasOwner(file: string): boolean {
  try {
    // Empty while it is being written: 0 is the group of this process, which lives.
    process.kill(Number(readFileSync(file, 'utf8')), 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '::', () => server.close(() => resolve(true)))
  })
