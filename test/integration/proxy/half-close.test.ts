/** half-close.ts on the kernel's own table. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { askWhetherGone } from '../../../proxy/runtime/half-close.ts'
import { type Accepted, type ListeningSocket, listenAt, listenAtPath } from '../../../proxy/runtime/listen.ts'
import { adopt, NO_HANDLER, type RawSocket } from '../../../proxy/runtime/raw-socket.ts'

const ask = (socket: RawSocket): Promise<boolean> => new Promise((resolve) => askWhetherGone(socket, resolve))

/** Takes connections and waits for their ends. */
class Host {
  readonly accepted: RawSocket[] = []
  readonly listening: ListeningSocket
  #ended = 0
  #wake: (() => void)[] = []

  constructor(listen: (serve: (accepted: Accepted) => void) => ListeningSocket) {
    this.listening = listen((accepted) => {
      this.accepted.push(adopt(accepted, { ...NO_HANDLER, onEnd: () => this.#tell(++this.#ended) }))
      this.#tell(0)
    })
  }

  #tell(_: number): void {
    for (const wake of this.#wake.splice(0)) wake()
  }

  async until(accepted: number, ended: number): Promise<void> {
    while (this.accepted.length < accepted || this.#ended < ended) {
      await new Promise<void>((resolve) => this.#wake.push(resolve))
    }
  }

  close(): void {
    for (const socket of this.accepted) socket.destroy()
    this.listening.close()
  }
}

for (const host of ['127.0.0.1', '::1']) {
  describe(`a peer on ${host}`, () => {
    it('that half-closed is not gone, and one that closed is, though many ask at once', async () => {
      const server = new Host((serve) => listenAt({ port: 0, host, ipv6Only: true }, serve, assert.ifError))
      const { port } = server.listening.name!
      const clients: Socket[] = []
      for (let i = 0; i < 40; i++) {
        const client = connect({ port, host, allowHalfOpen: true })
        await once(client, 'connect')
        clients.push(client)
      }
      await server.until(40, 0)
      const byPort = new Map(server.accepted.map((socket) => [socket.remote?.port, socket]))
      const ours = clients.map((client) => byPort.get(client.localPort)!)
      for (const [i, client] of clients.entries()) {
        if (i % 2 === 0) client.end()
        else client.destroy()
      }
      await server.until(40, 40)
      const answers = await Promise.all(ours.map(ask))
      assert.deepEqual(
        answers,
        clients.map((_, i) => i % 2 === 1),
      )
      for (const client of clients) client.destroy()
      assert.equal(await ask(ours[0]!), true)
      server.close()
    })
  })
}

describe('a peer on a Unix socket', () => {
  it('that half-closed or only rests is not gone, and one that closed is', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'amb-half-'))
    const path = join(dir, 'a.sock')
    const server = new Host((serve) => listenAtPath(path, 16, serve, assert.ifError))
    const { accepted } = server
    const clients: Socket[] = []
    for (let i = 0; i < 3; i++) {
      const client = connect({ path, allowHalfOpen: true })
      await once(client, 'connect')
      clients.push(client)
      await server.until(i + 1, 0)
    }
    clients[1]?.end()
    clients[2]?.destroy()
    await server.until(3, 2)
    assert.deepEqual(await Promise.all(accepted.map(ask)), [false, false, true])
    for (const socket of [...clients, ...accepted]) socket.destroy()
    assert.equal(await ask(accepted[0]!), true)
    server.close()
    rmSync(dir, { recursive: true })
  })
})
