/** The listener of a Unix socket, on real files. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { openSocket, UnixListener } from '../../../proxy/listener/unix-listener.ts'
import type { Accepted } from '../../../proxy/runtime/listen.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { saying, socketOf } from '../../helpers/serving.ts'
import { firstByte } from '../../helpers/tcp.ts'

const dir = mkdtempSync(join(tmpdir(), 'amb-listen-'))
after(() => rmSync(dir, { recursive: true }))
const ends = endsOfEach()

let sockets = 0
const freePath = () => join(dir, `${++sockets}.sock`)

async function bound(path: string, serve: (accepted: Accepted) => void = saying('x')) {
  const listener = new UnixListener(path, serve)
  await listener.bind()
  ends.push(() => listener.close())
  return listener
}

/** A socket file whose process was killed. */
async function stale(path: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('bound'))`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'close')
  assert.equal(statSync(path).isSocket(), true)
}

describe('UnixListener', () => {
  it('makes a socket that every user may connect to, whatever the umask, and leaves the umask alone', async () => {
    const before = process.umask(0o077)
    ends.push(() => process.umask(before))
    const { path } = await bound(freePath())
    assert.equal((statSync(path).mode & 0o777).toString(8), '666')
    assert.equal(process.umask(), 0o077)
    assert.equal(await firstByte({ path }), 'x')
  })

  it('replaces what a process left behind that was killed', async () => {
    const path = freePath()
    await stale(path)
    assert.equal(await firstByte({ path }), 'ECONNREFUSED')
    await bound(path)
    assert.equal(await firstByte({ path }), 'x')
  })

  it('leaves a socket alone on which another process listens', async () => {
    const path = freePath()
    const other = createServer((socket) => socket.on('error', () => {}).end('o')).listen(path)
    await once(other, 'listening')
    ends.push(() => other.close())
    await assert.rejects(bound(path), {
      name: 'BindError',
      message: `socket '${path}' cannot be made: another process listens there, give one of the two another path`,
    })
    assert.equal(await firstByte({ path }), 'o')
  })

  it('leaves a file alone that is no socket', async () => {
    const path = freePath()
    writeFileSync(path, 'precious')
    await assert.rejects(bound(path), {
      message: `socket '${path}' cannot be made: a file that is no socket is there, remove it or use another path`,
    })
    assert.equal(readFileSync(path, 'utf8'), 'precious')
    const directory = freePath()
    mkdirSync(directory)
    await assert.rejects(bound(directory), { message: /a file that is no socket is there/ })
  })

  it('says that there is no directory, and who must make it', async () => {
    const path = join(dir, 'none', 'a.sock')
    const what = `socket '${path}' cannot be made: there is no directory '${join(dir, 'none')}'`
    await assert.rejects(bound(path), { name: 'NoDirectoryError', message: what })
    const context = { owner: null, onError: () => {} }
    const inPod = await openSocket(path, { ...context, isPod: true })
    assert.equal((inPod as Error).message, `${what} in this pod, restart it`)
    const elsewhere = await openSocket(path, { ...context, isPod: false })
    assert.equal((elsewhere as Error).message, `${what}, make it or use another path`)
  })

  it('removes the file when it closes, and leaves the connections alone', async () => {
    const accepted: Socket[] = []
    const listener = await bound(freePath(), (each) => accepted.push(socketOf(each)))
    const client = connect(listener.path)
    await once(client, 'connect')
    ends.push(() => client.destroy())
    while (accepted.length === 0) await new Promise((resolve) => setImmediate(resolve))
    listener.close()
    assert.equal(existsSync(listener.path), false)
    accepted[0]?.write('still here')
    const [chunk] = (await once(client, 'data')) as [Buffer]
    assert.equal(chunk.toString(), 'still here')
    accepted[0]?.destroy()
    listener.close()
  })

  it('gives new connections to another taker, without being bound anew', async () => {
    const listener = await bound(freePath(), saying('1'))
    assert.equal(await firstByte({ path: listener.path }), '1')
    listener.handOver(saying('2'))
    assert.equal(await firstByte({ path: listener.path }), '2')
  })
})
