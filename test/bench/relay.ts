/**
 * The floor of a sidecar on Node: passes bytes by the sockets of proxy/runtime and does nothing else.
 * `node relay.ts PORT UPSTREAM_PORT [CA_FILE SERVER_NAME]`; with the two, TLS begins as PostgreSQL asks for it.
 */
import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContext } from 'node:tls'
import { firstBytes, scratchFor } from '../../proxy/runtime/buffers.ts'
import { type Accepted, drop, listenAt } from '../../proxy/runtime/listen.ts'
import { adopt, NO_HANDLER, openTcp, type RawSocket, type SocketHandler } from '../../proxy/runtime/raw-socket.ts'
import { TlsSocket } from '../../proxy/runtime/tls-socket.ts'

const [port, upstreamPort, caFile, serverName] = process.argv.slice(2)
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** What one side sends, on its way to the other. */
class Way implements SocketHandler {
  from: RawSocket | null = null
  to: RawSocket | null = null

  onData(chunk: Buffer, length: number): void {
    const { from, to } = this
    if (from === null || to === null) return
    const memory = scratchFor(length)
    chunk.copy(memory, 0, 0, length)
    if (!to.lend(firstBytes(memory, length), memory) || to.isSlow) from.pause()
  }

  onEnd(): void {
    this.from?.destroy()
    this.to?.destroy()
  }

  onDrain(): void {
    this.to?.resume()
  }

  onClose(): void {
    this.to?.destroy()
  }
}

/** The upstream is there: both sides are read from now on. */
const join = (accepted: Accepted, there: RawSocket): void => {
  const out = new Way()
  const back = new Way()
  out.to = there
  back.from = there
  out.from = adopt(accepted, out)
  back.to = out.from
  there.handler = back
}

const secure = (accepted: Accepted, plain: RawSocket, context: SecureContext): void => {
  const name = serverName ?? ''
  const options = { context, serverName: name, sentName: name, session: undefined, alpn: null, isUnverified: false }
  const onSecure = (there: RawSocket): void => join(accepted, there)
  new TlsSocket(plain, options, { ...NO_HANDLER, onSecure, onClose: () => drop(accepted) }, () => {})
}

const serve = (accepted: Accepted): void => {
  openTcp(
    { address: '127.0.0.1', port: Number(upstreamPort) },
    {
      ...NO_HANDLER,
      onClose: () => drop(accepted),
      onConnect: (there) => {
        there.tune(30_000)
        if (context === null) join(accepted, there)
        else {
          there.handler = {
            ...NO_HANDLER,
            onData: () => secure(accepted, there, context),
            onClose: () => drop(accepted),
          }
          there.write(SSL_REQUEST)
        }
        there.start()
      },
    },
  )
}

const context = caFile === undefined ? null : createSecureContext({ ca: readFileSync(caFile) })
listenAt({ port: Number(port), host: '127.0.0.1', ipv6Only: true }, serve, console.error)
