/** WebSocket with a library that is not ours at both ends. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { endsOfEach } from '../../helpers/ends.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

/** A server, and an application that has reached it through the sidecar. */
async function connected(options: { protocols?: string[]; perMessageDeflate?: boolean } = {}) {
  const { protocols = [], perMessageDeflate = false } = options
  const wss = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate })
  await once(wss, 'listening')
  ends.push(() => {
    for (const each of wss.clients) each.terminate()
    wss.close()
  })
  const { port } = wss.address() as AddressInfo
  const proxy = await renderedProxy({ upstreams: [{ name: 'live', endpoints: [{ host: '127.0.0.1', port }] }] }, ends)
  const accepted = once(wss, 'connection')
  const client = new WebSocket(`ws://127.0.0.1:${proxy.port}/chat?room=1`, protocols, { perMessageDeflate })
  ends.push(() => client.terminate())
  await once(client, 'open')
  const [server, request] = (await accepted) as [WebSocket, { url: string }]
  return { client, server, request, proxy }
}

/** The next message of one side. */
const next = async (socket: WebSocket): Promise<{ data: Buffer; isBinary: boolean }> => {
  const [data, isBinary] = await once(socket, 'message')
  return { data, isBinary }
}

describe('WebSocket through the sidecar', () => {
  it('carries text both ways, with the target and the subprotocol of the application', async () => {
    const { client, server, request } = await connected({ protocols: ['chat.v2'] })
    assert.equal(request.url, '/chat?room=1')
    assert.deepEqual([client.protocol, server.protocol], ['chat.v2', 'chat.v2'])
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      const arrived = next(to)
      from.send('grüße')
      const { data, isBinary } = await arrived
      assert.deepEqual([String(data), isBinary], ['grüße', false])
    }
  })

  it('carries a ping and its pong, from either side, with their bytes', async () => {
    const { client, server } = await connected()
    for (const side of [client, server]) {
      const pong = once(side, 'pong')
      side.ping('still there?')
      assert.equal(String((await pong)[0]), 'still there?')
    }
  })

  for (const perMessageDeflate of [false, true])
    it(`carries a binary message of 1 MiB there and back, ${perMessageDeflate ? '' : 'not '}compressed`, async () => {
      const { client, server } = await connected({ perMessageDeflate })
      assert.equal(client.extensions.includes('permessage-deflate'), perMessageDeflate)
      server.on('message', (data, binary) => server.send(data, { binary }))
      const sent = randomBytes(1 << 20)
      const back = next(client)
      client.send(sent)
      const { data, isBinary } = await back
      assert.ok(isBinary)
      assert.ok(data.equals(sent))
    })

  for (const side of ['application', 'server'] as const)
    it(`carries the close code and the reason of the ${side}`, async () => {
      const { client, server, proxy } = await connected()
      const [from, to] = side === 'application' ? [client, server] : [server, client]
      const both = Promise.all([once(from, 'close'), once(to, 'close')])
      from.close(4001, 'that is all')
      for (const [code, reason] of await both) assert.deepEqual([code, String(reason)], [4001, 'that is all'])
      const [line] = await proxy.logged(1)
      assert.equal(line?.['status'], 101)
    })
})
