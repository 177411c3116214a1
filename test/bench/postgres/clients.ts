/** Many clients of PostgreSQL at once, with no more to them than a socket. */
import { connect, type Socket } from 'node:net'

const STARTUP = startup('user\0bench\0database\0postgres\0\0')
const QUERY = Buffer.concat([Buffer.from([0x51, 0, 0, 0, 13]), Buffer.from('select 1\0')])
/** The end of a ReadyForQuery outside of a transaction. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
/** Logins at once: a burst of more than the backlog of a listener would be refused. */
const AT_ONCE = 100

/** Opens so many clients, which are let in; close them by destroy(). Fails when one is refused. */
export async function openClients(port: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  while (sockets.length < count) {
    const wave = Array.from({ length: Math.min(AT_ONCE, count - sockets.length) }, () => connect(port, '127.0.0.1'))
    sockets.push(...wave)
    await Promise.all(wave.map((socket) => ask(socket, STARTUP)))
  }
  return sockets
}

/** Has each client ask `select 1` so many times, one after the other, all clients at once. Returns the seconds that it took. */
export async function askAll(sockets: readonly Socket[], times: number): Promise<number> {
  const began = performance.now()
  await Promise.all(
    sockets.map(async (socket) => {
      for (let n = 0; n < times; n++) await ask(socket, QUERY)
    }),
  )
  return (performance.now() - began) / 1000
}

function ask(socket: Socket, request: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error?: Error) => {
      socket.off('data', onData).off('error', end).off('close', onClose)
      if (error === undefined) resolve()
      else reject(error)
    }
    const onClose = () => end(new Error('the connection was closed'))
    const onData = (chunk: Buffer) => {
      if (chunk.subarray(-READY.length).equals(READY)) end()
      else if (chunk[0] === 0x45) end(new Error(`refused: ${chunk.toString('latin1')}`))
    }
    socket.on('data', onData).on('error', end).on('close', onClose)
    socket.write(request)
  })
}

function startup(parameters: string): Buffer {
  const head = Buffer.alloc(8)
  head.writeInt32BE(8 + parameters.length)
  head.writeInt32BE(3 << 16, 4)
  return Buffer.concat([head, Buffer.from(parameters)])
}
