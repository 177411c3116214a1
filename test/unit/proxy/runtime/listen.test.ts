import assert from 'node:assert/strict'
import { createServer, Server } from 'node:net'
import { after, describe, it } from 'node:test'
import { listenAt } from '../../../../proxy/runtime/listen.ts'

const servers: Server[] = []
after(() => {
  for (const server of servers) server.close()
})

async function bound(port: number, host: string, ipv6Only = false): Promise<Server> {
  const server = createServer()
  await listenAt(server, { port, host, ipv6Only })
  servers.push(server)
  return server
}

const portOf = (server: Server) => (server.address() as { port: number }).port

describe('listenAt', () => {
  it('binds the address that it is given, and says that it listens', async () => {
    const server = await bound(0, '127.0.0.1')
    assert.equal(server.listening, true)
    const { address, family } = server.address() as { address: string; family: string }
    assert.deepEqual([address, family], ['127.0.0.1', 'IPv4'])
  })

  it('rejects with the error of the kernel when the port is taken', async () => {
    const port = portOf(await bound(0, '127.0.0.1'))
    await assert.rejects(bound(port, '127.0.0.1'), { code: 'EADDRINUSE' })
  })

  it('takes one family alone when it is told so, and both otherwise', async () => {
    const port = portOf(await bound(0, '127.0.0.1'))
    await bound(port, '::', true)
    const both = portOf(await bound(0, '::'))
    await assert.rejects(bound(both, '127.0.0.1'), { code: 'EADDRINUSE' })
  })

  it('finds in this Node what it goes past listen() with', () => {
    assert.equal(typeof (Server.prototype as { _listen2?: unknown })._listen2, 'function')
  })
})
