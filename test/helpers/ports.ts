/** Ports that are free on this machine now. */
import { createServer } from 'node:net'

/** Below the ports that a kernel gives to outgoing connections and to `listen(0)`: any process may take one of those at any moment. */
const FIRST = 12_000
const COUNT = 16_000

const given = new Set<number>()

/** A port that nothing listens on, on either family, and that no earlier call of this process gave. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(COUNT * Math.random())
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '::', () => server.close(() => resolve(true)))
  })
