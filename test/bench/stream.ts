/**
 * Both ends of a stream: `node stream.ts serve PORT [CERTIFICATE KEY]` sends without end to whoever sends `d`, and answers every MiB that
 * it has from whoever sent `u` with a byte; `node stream.ts load PORT CONNECTIONS SECONDS d|u` asks for the one or sends the other, and
 * prints what came through.
 */
import { readFileSync } from 'node:fs'
import { connect, Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { type Accepted, listenAt } from '../../proxy/runtime/listen.ts'

const MIB = 1024 * 1024
const PIECE = Buffer.alloc(MIB / 4, 'ambassador ')

/** Writes the same piece again and again until the connection ends. */
const send = (socket: Socket): void => {
  socket.write(PIECE, (error) => {
    if (!error) send(socket)
  })
}

/** What the server does with what comes: the first byte says which way the stream goes. */
const receiver = (socket: Socket): ((chunk: Buffer, length: number) => void) => {
  let received = 0
  let answered = 0
  return (chunk, length) => {
    if (received === 0 && chunk[0] === 'd'.charCodeAt(0)) send(socket)
    received += length
    const whole = Math.floor(received / MIB)
    if (whole > answered) socket.write(Buffer.alloc(whole - answered))
    answered = Math.max(answered, whole)
  }
}

const serve = (port: number, certificate: string | undefined, key: string | undefined): void => {
  if (certificate === undefined || key === undefined) {
    const buffer = Buffer.allocUnsafeSlow(MIB / 16)
    const onAccepted = (handle: Accepted): void => {
      // As the proxy reads: a sink that allocates for each read would be the bottleneck.
      let onData: (chunk: Buffer, length: number) => void = () => {}
      const onread = {
        buffer,
        callback: (length: number) => {
          onData(buffer, length)
          return true
        },
      }
      const socket = new Socket({ handle, onread } as never)
      socket.on('error', () => socket.destroy())
      onData = receiver(socket)
    }
    listenAt({ port, host: '127.0.0.1', ipv6Only: true }, onAccepted, console.error)
    return
  }
  createTlsServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (socket) => {
    const onData = receiver(socket)
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => onData(chunk, chunk.length))
  }).listen(port, '127.0.0.1')
}

const load = async (port: number, connections: number, seconds: number, way: string): Promise<void> => {
  let bytes = 0
  let errors = 0
  let isOver = false
  const buffer = Buffer.allocUnsafeSlow(MIB / 4)
  const sockets = Array.from({ length: connections }, () => {
    const socket = connect({
      port,
      host: '127.0.0.1',
      onread: {
        buffer,
        callback: (length) => {
          bytes += way === 'd' ? length : length * MIB
          return true
        },
      },
    })
    socket.write(way)
    if (way === 'u') send(socket)
    socket.on('error', () => {})
    socket.once('close', () => {
      if (!isOver) errors++
    })
    return socket
  })
  const began = performance.now()
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  const took = (performance.now() - began) / 1000
  process.stdout.write(`JSON ${JSON.stringify({ bytes, errors, seconds: took })}\n`)
  isOver = true
  for (const socket of sockets) socket.resetAndDestroy()
}

const [role, port, ...rest] = process.argv.slice(2)
if (role === 'serve') serve(Number(port), rest[0], rest[1])
else await load(Number(port), Number(rest[0]), Number(rest[1]), rest[2] ?? 'd')
