import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { describe, it } from 'node:test'
import { Listener } from '../../../proxy/listener/listener.ts'
import { drop } from '../../../proxy/runtime/listen.ts'
import { freePort } from '../../helpers/ports.ts'
import { saying, socketOf } from '../../helpers/serving.ts'
import { firstByte } from '../../helpers/tcp.ts'

const outside = Object.values(networkInterfaces())
  .flat()
  .find((each) => each?.family === 'IPv4' && !each.internal)?.address

const listening = (port: number, host: string) =>
  new Promise<Server>((resolve) => {
    const server = createServer().listen(port, host, () => resolve(server))
  })

describe('Listener', () => {
  it('is on both loopback addresses and on no other', async () => {
    const port = await freePort()
    const listener = new Listener(port, saying('x'))
    await listener.bind()
    assert.deepEqual(listener.addresses, ['127.0.0.1', '::1'])
    assert.equal(await firstByte({ port, host: '127.0.0.1' }), 'x')
    assert.equal(await firstByte({ port, host: '::1' }), 'x')
    if (outside !== undefined) assert.equal(await firstByte({ port, host: outside }), 'ECONNREFUSED')
    await listener.close()
  })

  it('names the port and the address that another process has, and leaves nothing bound', async () => {
    for (const address of ['127.0.0.1', '::1']) {
      const port = await freePort()
      const other = await listening(port, address)
      const listener = new Listener(port, drop)
      await assert.rejects(listener.bind(), {
        name: 'PortInUseError',
        message: `port ${port} on ${address} is in use by another process of this pod, give one of the two another port`,
      })
      assert.deepEqual(listener.addresses, [])
      const free = address === '::1' ? '127.0.0.1' : '::1'
      assert.equal(await firstByte({ port, host: free }), 'ECONNREFUSED')
      other.close()
    }
  })

  it('frees the port when it closes, and leaves the connections alone', async () => {
    const port = await freePort()
    const accepted: Socket[] = []
    const listener = new Listener(port, (each) => accepted.push(socketOf(each)))
    await listener.bind()
    const client = connect(port, '127.0.0.1')
    await once(client, 'connect')
    while (accepted.length === 0) await new Promise((resolve) => setImmediate(resolve))
    await listener.close()
    const second = new Listener(port, drop)
    await second.bind()
    accepted[0]?.write('still here')
    const [chunk] = (await once(client, 'data')) as [Buffer]
    assert.equal(chunk.toString(), 'still here')
    client.destroy()
    accepted[0]?.destroy()
    await second.close()
  })

  it('gives new connections to another taker, without being bound anew', async () => {
    const port = await freePort()
    const listener = new Listener(port, saying('1'))
    await listener.bind()
    assert.equal(await firstByte({ port, host: '127.0.0.1' }), '1')
    listener.handOver(saying('2'))
    assert.equal(await firstByte({ port, host: '127.0.0.1' }), '2')
    await listener.close()
  })
})
