/** What slow peers cost the process: a bounded piece each, whatever the size of the bodies and however they are framed. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { endsOfAll } from '../../helpers/ends.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { tcpServer } from '../../helpers/tcp.ts'

const MIB = 1 << 20
const LARGE = 64 * MIB

const ends = endsOfAll()

/** Anonymous memory of a process in MiB: what it costs the node, without the pages that it shares. */
function anonymousMb(pid: number): number {
  return Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
}

const piece = Buffer.alloc(64 * 1024, 'x')
const chunk = Buffer.concat([Buffer.from('10000\r\n'), piece, Buffer.from('\r\n')])
const smallChunks = Buffer.from('10\r\n0123456789abcdef\r\n'.repeat(3000))

interface Kind {
  readonly peers: number
  readonly send: string
  readonly head?: string
  readonly piece: Buffer
}

/** What each kind of client sends, and what it is answered with on and on; none: its body is not read. */
const KINDS: Record<string, Kind> = {
  '/length': { peers: 100, send: '', head: `Content-Length: ${LARGE}\r\n`, piece },
  '/chunks': { peers: 225, send: '', head: 'Transfer-Encoding: chunked\r\n', piece: chunk },
  '/small-chunks': { peers: 225, send: '', head: 'Transfer-Encoding: chunked\r\n', piece: smallChunks },
  '/close': { peers: 225, send: '', head: '', piece },
  '/upload': { peers: 225, send: `Content-Length: ${LARGE}\r\n`, piece },
}

/** Writes as long as somebody takes it. */
function pump(socket: Socket, bytes: Buffer, onWritten: (count: number) => void): void {
  const more = (): void => {
    let isTaken = true
    while (isTaken && !socket.destroyed) {
      isTaken = socket.write(bytes)
      onWritten(bytes.length)
    }
  }
  socket.on('drain', more)
  more()
}

it('a thousand slow peers of large bodies, both ways and in every framing, cost less than 64 MiB', {
  timeout: 180_000,
}, async (t) => {
  let written = 0
  const count = (bytes: number): void => {
    written += bytes
  }
  const upstream = await tcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (data: Buffer) => {
      const target = data.toString('latin1').split(' ')[1]!
      const kind = KINDS[target]!
      if (kind.head === undefined) {
        socket.pause()
        return
      }
      socket.write(`HTTP/1.1 200 OK\r\n${kind.head}\r\n`)
      pump(socket, kind.piece, count)
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
  ends.push(() => proxy.end())
  await proxy.ready()
  const pid = proxy.child.pid!
  const before = anonymousMb(pid)
  const clients: Socket[] = []
  ends.push(() => {
    for (const client of clients) client.destroy()
  })
  let sum = 0
  for (const [target, { peers, send, head, piece: bytes }] of Object.entries(KINDS)) {
    written = 0
    for (let i = 0; i < peers; i++) {
      const client = connect(port, '127.0.0.1')
      client.on('error', () => {})
      await once(client, 'connect')
      client.pause()
      client.write(`${head === undefined ? 'POST' : 'GET'} ${target} HTTP/1.1\r\nHost: a\r\n${send}\r\n`)
      if (head === undefined) pump(client, bytes, count)
      clients.push(client)
    }
    await upstream.connections(clients.length)
    for (let last = -1, quiet = 0; quiet < 2; ) {
      quiet = last === written ? quiet + 1 : 0
      last = written
      await wait(300)
    }
    const growth = anonymousMb(pid) - before
    t.diagnostic(
      `${target}: ${(growth - sum).toFixed(1)} MiB for ${peers} peers, ${Math.round(written / MIB)} MiB under way`,
    )
    sum = growth
    assert.ok(written / MIB > peers / 16, 'somebody holds the sender up')
    assert.ok(written < (peers * LARGE) / 4, 'nobody holds the sender up')
  }
  t.diagnostic(`${before.toFixed(1)} MiB before, ${sum.toFixed(1)} more with ${clients.length} slow peers`)
  assert.ok(sum < 64, `${sum} MiB`)
})
