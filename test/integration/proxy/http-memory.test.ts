/** What slow receivers cost the process: a bounded piece each, whatever the size of the bodies. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { after, it } from 'node:test'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { tcpServer } from '../../helpers/tcp.ts'

const READERS = 100
const ends: (() => unknown)[] = []
after(async () => {
  for (const end of ends.reverse()) await end()
})

/** Anonymous memory of a process in MiB: what it costs the node, without the pages that it shares. */
function anonymousMb(pid: number): number {
  return Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
}

it('a hundred readers of 64 MiB bodies that do not read cost less than 16 MiB', { timeout: 60_000 }, async (t) => {
  const piece = Buffer.alloc(1 << 18, 'x')
  let written = 0
  const upstream = await tcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${64 << 20}\r\n\r\n`)
      const pump = (): void => {
        let isTaken = true
        while (isTaken && !socket.destroyed) {
          isTaken = socket.write(piece)
          written += piece.length
        }
      }
      socket.on('drain', pump)
      pump()
    })
  })
  ends.push(() => upstream.close())
  const port = await freePort()
  const proxy = await ProxyProcess.start({
    UPSTREAM_HOST: '127.0.0.1',
    UPSTREAM_PORT: String(upstream.port),
    PROTOCOL: 'HTTP',
    LISTEN_PORT: String(port),
  })
  ends.push(() => {
    proxy.kill('SIGKILL')
    return proxy.exit
  })
  await proxy.ready()
  const pid = proxy.child.pid!
  const before = anonymousMb(pid)
  const clients: Socket[] = []
  ends.push(() => {
    for (const client of clients) client.destroy()
  })
  for (let i = 0; i < READERS; i++) {
    const client = connect(port, '127.0.0.1')
    client.on('error', () => {})
    await once(client, 'connect')
    client.pause()
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    clients.push(client)
  }
  await upstream.connections(READERS)
  let last = -1
  while (written !== last) {
    last = written
    await new Promise((resolve) => setTimeout(resolve, 400))
  }
  const growth = anonymousMb(pid) - before
  t.diagnostic(
    `${before.toFixed(1)} MiB before, ${growth.toFixed(1)} more with ${READERS} slow readers, ${written >> 20} MiB under way`,
  )
  assert.ok(written >> 20 > READERS, 'the readers hold the upstream up')
  assert.ok(growth < 16, `${growth} MiB`)
})
