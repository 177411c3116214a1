/**
 * The floor of a sidecar on Node: passes bytes by the sockets of proxy/runtime and does nothing else.
 * `node relay.ts PORT UPSTREAM_PORT [CA_FILE SERVER_NAME]`; with the two, TLS begins as PostgreSQL asks for it.
 */
import { readFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { firstBytes, scratchFor } from '../../proxy/runtime/buffers.ts'
import {
  adopt,
  LISTEN_OPTIONS,
  openTcp,
  type RawSocket,
  type SocketHandler,
  upgradeTls,
} from '../../proxy/runtime/raw-socket.ts'

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

/** The upstream is there: the application is read from now on. */
const join = (accepted: Socket, there: RawSocket, back: Way): void => {
  const out = new Way()
  out.to = there
  back.from = there
  out.from = adopt(accepted, out)
  back.to = out.from
  out.from.socket.resume()
}

const serve = (accepted: Socket): void => {
  const back = new Way()
  const address = { host: '127.0.0.1', port: Number(upstreamPort), noDelay: true }
  if (secureContext === null) {
    const raw = openTcp(address, back)
    raw.socket.once('connect', () => join(accepted, raw, back))
    return
  }
  const plain = connect(address, () => plain.write(SSL_REQUEST))
  plain.once('error', () => accepted.destroy())
  plain.once('data', () => {
    const raw = upgradeTls(plain, { servername: serverName ?? '', secureContext }, back)
    raw.socket.once('secureConnect', () => join(accepted, raw, back))
  })
}

const secureContext = caFile === undefined ? null : createSecureContext({ ca: readFileSync(caFile) })
createServer(LISTEN_OPTIONS, serve).listen(Number(port), '127.0.0.1')
