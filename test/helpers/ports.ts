/** Ports that are free on this machine now. */
import { createServer, type Server } from 'node:net'

/** Below the ports that a kernel gives to outgoing connections and to `listen(0)`: any process may take one of those at any moment. */
const FIRST = 12_000
const BLOCK = 50
const BLOCKS = 320

let block = 0
let next = BLOCK

/** A port that nothing listens on, on either family, and that no earlier call gave, neither of this process nor of another one that lives. */
export async function freePort(): Promise<number> {
  for (;;) {
    if (next === BLOCK) {
      block = await ownBlock()
      next = 1
    }
    const port = block + next++
    if (await isFree(port)) return port
  }
}

/** Test files run side by side: the first port of a block is listened on by who has the block, until that process ends. */
async function ownBlock(): Promise<number> {
  for (;;) {
    const first = FIRST + BLOCK * Math.floor(BLOCKS * Math.random())
    const held = await listening(first, '127.0.0.1')
    if (held === null) continue
    held.unref()
    return first
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = await listening(port, '::')
  if (server === null) return false
  await new Promise((resolve) => server.close(resolve))
  return true
}

function listening(port: number, host: string): Promise<Server | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(null))
    server.listen(port, host, () => resolve(server))
  })
}
