/** A TLS server that can close its connections without ending TLS, as a program does that was killed or that nobody taught to. */
import { createServer, type Socket } from 'node:net'
import { TLSSocket, type TLSSocketOptions } from 'node:tls'
import { TestServer } from './tcp.ts'

export interface RudeSocket {
  readonly tls: TLSSocket
  /** Sends FIN behind what was written, and no close_notify before it. */
  cut(): void
}

/** `ends` gets what ends it. `serve` is called when the first bytes have come. */
export async function rudeTlsServer(
  options: TLSSocketOptions,
  serve: (socket: RudeSocket, first: Buffer) => void,
  ends: (() => unknown)[],
): Promise<TestServer> {
  const server = createServer({ allowHalfOpen: true }, (plain: Socket) => {
    const tls = new TLSSocket(plain, { ...options, isServer: true })
    tls.on('error', () => {})
    tls.once('data', (first: Buffer) => serve({ tls, cut: () => void plain.end() }, first))
  })
  const made = await new TestServer(server).listen()
  ends.push(() => made.close())
  return made
}
