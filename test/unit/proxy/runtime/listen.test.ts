import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, describe, it } from 'node:test'
import { drop, type ListeningSocket, listenAt } from '../../../../proxy/runtime/listen.ts'

const all: ListeningSocket[] = []
after(() => {
  for (const socket of all) socket.close()
})

function bound(port: number, host: string, ipv6Only = false): ListeningSocket {
  const socket = listenAt({ port, host, ipv6Only }, drop, assert.ifError)
  all.push(socket)
  return socket
}

const portOf = (socket: ListeningSocket): number => socket.name!.port

describe('listenAt', () => {
  it('binds the address that it is given, and knows its name', () => {
    const { name } = bound(0, '127.0.0.1')
    assert.equal(name?.address, '127.0.0.1')
    assert.ok(name.port > 0)
  })

  it('throws the error of the kernel when the port is taken', () => {
    const port = portOf(bound(0, '127.0.0.1'))
    assert.throws(() => bound(port, '127.0.0.1'), {
      code: 'EADDRINUSE',
      message: `listen EADDRINUSE address already in use 127.0.0.1:${port}`,
    })
  })

  it('takes one family alone when it is told so, and both otherwise', () => {
    const port = portOf(bound(0, '127.0.0.1'))
    bound(port, '::', true)
    const both = portOf(bound(0, '::'))
    assert.throws(() => bound(both, '127.0.0.1'), { code: 'EADDRINUSE' })
  })

  it('frees the port at once when it closes, and closing again does nothing', async () => {
    const first = bound(0, '127.0.0.1')
    const port = portOf(first)
    first.close()
    first.close()
    assert.equal(first.name, null)
    const second = bound(port, '127.0.0.1')
    await new Promise((resolve) =>
      connect(port, '127.0.0.1').once('connect', resolve).once('close', resolve).on('error', resolve),
    )
    assert.equal(portOf(second), port)
  })
})
