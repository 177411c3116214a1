/** Ports that are free on this machine now. */
import { createServer } from 'node:net'

const given = new Set<number>()

/** A port that nothing listens on, on either family, and that no earlier call of this process gave. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = await new Promise<number>((resolve, reject) => {
      const server = createServer()
      server.once('error', reject)
      server.listen(0, '::', () => {
        const address = server.address()
        server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
      })
    })
    if (given.has(port)) continue
    given.add(port)
    return port
  }
}
