/** handles.ts on real sockets: the alarm for a Node release whose handles are made in another way. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type HandleOwner, ioError, type StreamHandle, writeTo } from '../../../proxy/runtime/handles.ts'

const handleOf = (socket: Socket): StreamHandle => (socket as unknown as { _handle: StreamHandle })._handle

/** Both ends of a connection; `where` is a port of 0 or the path of a Unix socket. */
async function connection(where: number | string) {
  const server: Server = createServer({ noDelay: true })
  server.listen(typeof where === 'number' ? { port: where, host: '127.0.0.1' } : { path: where })
  await once(server, 'listening')
  // Paused, so that it does not hear of an end by itself: only what writing says is told.
  const client = new Socket().pause()
  const address = server.address()
  const accepted = once(server, 'connection')
  const connected = once(client, 'connect')
  if (typeof address === 'string') client.connect(address)
  else client.connect(address!.port, '127.0.0.1')
  await connected
  const [peer] = (await accepted) as [Socket]
  client.on('error', () => {})
  peer.on('error', () => {})
  return {
    client,
    peer,
    close: async () => {
      client.destroy()
      peer.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Hears how a write ended. */
function owner() {
  let tell: (error: Error | null) => void
  const ended = new Promise<Error | null>((resolve) => {
    tell = resolve
  })
  const hears: HandleOwner = {
    onConnected() {},
    onRead: () => undefined,
    onWritten: (status, detail) => tell(status < 0 ? ioError('write', status, detail) : null),
    onShutdown() {},
    onClosed() {},
  }
  return { ended, hears }
}

/** Writes until the kernel takes no more; returns what hears of the last write, and how much was written. */
function fill(handle: StreamHandle) {
  const piece = Buffer.alloc(1 << 20, 'x')
  for (let written = piece.length; ; written += piece.length) {
    const last = owner()
    const said = writeTo(handle, piece, last.hears)
    if (said === false) return { last, written }
    assert.equal(said, true)
  }
}

describe('writeTo', () => {
  for (const [kind, where] of [
    ['TCP connection', 0],
    ['Unix socket', join(tmpdir(), `ambassador-handles-${process.pid}.sock`)],
  ] as const)
    describe(`on a ${kind}`, () => {
      it('says at once that the kernel has taken everything', async () => {
        const { client, peer, close } = await connection(where)
        const arrived = once(peer, 'data')
        assert.equal(writeTo(handleOf(client), Buffer.from('hello'), owner().hears), true)
        assert.equal(String((await arrived)[0]), 'hello')
        await close()
      })

      it('tells of the end of a write that took longer, when the peer has read', async () => {
        const { client, peer, close } = await connection(where)
        peer.pause()
        const { last, written } = fill(handleOf(client))
        let got = 0
        peer.on('data', (data: Buffer) => {
          got += data.length
        })
        peer.resume()
        assert.equal(await last.ended, null)
        while (got < written) await once(peer, 'data')
        assert.equal(got, written)
        await close()
      })

      it('tells with a code of a write that the end of the connection cut off', async () => {
        const { client, peer, close } = await connection(where)
        peer.pause()
        const { last } = fill(handleOf(client))
        client.destroy()
        const error = (await last.ended) as NodeJS.ErrnoException
        assert.equal(error.code, 'ECANCELED')
        assert.equal(error.message, 'write ECANCELED')
        await close()
      })

      it('returns the error of the kernel for a connection that was reset', async () => {
        const { client, peer, close } = await connection(where)
        const handle = handleOf(client)
        const gone = once(peer, 'close')
        peer.destroy()
        await gone
        // Of TCP the first write is answered by a reset, which one of the next ones meets.
        let said = writeTo(handle, Buffer.from('x'), owner().hears)
        while (said === true) {
          await new Promise((resolve) => setImmediate(resolve))
          said = writeTo(handle, Buffer.from('x'), owner().hears)
        }
        const { code, syscall, errno } = said as NodeJS.ErrnoException
        assert.ok(code === 'EPIPE' || code === 'ECONNRESET', String(code))
        assert.equal((said as Error).message, `write ${code}`)
        assert.equal(syscall, 'write')
        assert.ok(errno! < 0)
        await close()
      })
    })
  rmSync(join(tmpdir(), `ambassador-handles-${process.pid}.sock`), { force: true })
})
