/** half-close.ts on the kernel's own table. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { askWhetherGone } from '../../../proxy/runtime/half-close.ts'
import { tcpServer } from '../../helpers/tcp.ts'

const ask = (socket: Socket): Promise<boolean> => new Promise((resolve) => askWhetherGone(socket, resolve))

for (const host of ['127.0.0.1', '::1']) {
  describe(`a peer on ${host}`, () => {
    it('that half-closed is not gone, and one that closed is, though many ask at once', async () => {
      const accepted: Socket[] = []
      const server = await tcpServer((socket) => accepted.push(socket.resume()), 0, host)
      const clients: Socket[] = []
      for (let i = 0; i < 40; i++) {
        const client = connect({ port: server.port, host, allowHalfOpen: true })
        await once(client, 'connect')
        clients.push(client)
      }
      await server.connections(40)
      const byPort = new Map(accepted.map((socket) => [socket.remotePort, socket]))
      const ended = Promise.all(accepted.map((socket) => once(socket, 'end')))
      const ours = clients.map((client) => byPort.get(client.localPort)!)
      for (const [i, client] of clients.entries()) {
        if (i % 2 === 0) client.end()
        else client.destroy()
      }
      await ended
      const answers = await Promise.all(ours.map(ask))
      assert.deepEqual(
        answers,
        clients.map((_, i) => i % 2 === 1),
      )
      for (const client of clients) client.destroy()
      assert.equal(await ask(ours[0]!), true)
      await server.close()
    })
  })
}

describe('a peer on a Unix socket', () => {
  it('that half-closed or only rests is not gone, and one that closed is', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'amb-half-'))
    const path = join(dir, 'a.sock')
    const accepted: Socket[] = []
    const server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(socket.resume())).listen(path)
    await once(server, 'listening')
    const clients: Socket[] = []
    for (let i = 0; i < 3; i++) {
      const client = connect({ path, allowHalfOpen: true })
      await once(client, 'connect')
      clients.push(client)
      while (accepted.length <= i) await new Promise((resolve) => setImmediate(resolve))
    }
    clients[1]?.end()
    clients[2]?.destroy()
    await Promise.all(accepted.slice(1).map((socket) => once(socket, 'end')))
    assert.deepEqual(await Promise.all(accepted.map(ask)), [false, false, true])
    for (const socket of [...clients, ...accepted]) socket.destroy()
    assert.equal(await ask(accepted[0]!), true)
    server.close()
    rmSync(dir, { recursive: true })
  })
})
