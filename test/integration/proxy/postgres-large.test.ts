/** What large messages cost the process, with pooling: a bounded piece, whatever their size. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { dump } from 'js-yaml'
import { freePort } from '../../helpers/ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { copyData, message, query, scope, startup } from '../../helpers/postgres-client.ts'
import { MountedFiles } from '../../helpers/postgres-proxy.ts'
import { copyDone, describePortal, execute, parse, sync } from '../../helpers/postgres-stream.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const MIB = 1 << 20
const LARGE = 96 * MIB
const BOUND_MIB = 48
const PIECE = Buffer.alloc(MIB, 'x')

/** The most memory that a process has had, in MiB. */
function peakMb(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
}

/** A client that counts what it gets and keeps the end of it alone. */
class CountingClient {
  readonly socket
  count = 0
  #end = ''

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1')
    this.socket.on('data', (chunk: Buffer) => {
      this.count += chunk.length
      this.#end = (this.#end + chunk.subarray(-64).toString('latin1')).slice(-64)
    })
  }

  /** Writes one after the other, as they are taken. */
  async write(...parts: readonly Buffer[]): Promise<void> {
    for (const part of parts) {
      if (!this.socket.write(part)) await new Promise((resolve) => this.socket.once('drain', resolve))
    }
  }

  /** Resolves with the bytes that came until the server was ready. */
  async ready(): Promise<number> {
    while (!this.#end.endsWith('Z\0\0\0\x05I')) await new Promise((resolve) => this.socket.once('data', resolve))
    const { count } = this
    this.count = 0
    this.#end = ''
    return count
  }
}

it(
  'a row, a value and a COPY of 96 MiB pass a pool, the row to a client that stops reading, and cost less than 48 MiB',
  { timeout: 240_000 },
  (t) =>
    scope(async (ends) => {
      const server = await postgresServer({}, ends)
      const files = new MountedFiles()
      files.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
      ends.push(() => files.remove())
      const port = await freePort()
      const password = { secretKeyRef: { name: 'db', key: 'password' } }
      const spec = {
        protocol: 'PostgreSQL',
        listen: { port },
        upstreams: [
          {
            name: 'primary',
            endpoints: [{ host: '127.0.0.1', port: server.port }],
            auth: { postgres: { username: POSTGRES_USER, password } },
            limits: { maxConnections: 1 },
          },
        ],
        postgres: { pooling: { mode: 'Transaction' }, queryLog: { minDuration: '0ms' } },
      }
      files.put(
        'secrets',
        'config',
        'orders.yaml',
        dump({ apiVersion: 'ambassador.dev/v1alpha1', kind: 'Ambassador', metadata: { name: 'orders' }, spec }),
      )
      const file = `${files.dirs.secrets}/config/orders.yaml`
      const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
      const proxy = await ProxyProcess.start({}, [
        'cli/main.ts',
        'run',
        '-f',
        file,
        '--secrets',
        files.dirs.secrets,
        ...own,
      ])
      ends.push(() => proxy.end())
      await proxy.ready()
      const pid = proxy.child.pid!
      const client = new CountingClient(port)
      ends.push(() => client.socket.destroy())
      await client.write(startup(0, 'user\0x\0database\0postgres\0\0'))
      await client.ready()
      await client.write(query('create table lines (line text)'))
      await client.ready()
      const before = peakMb(pid)
      const peaks: string[] = []
      const look = (what: string): void => {
        peaks.push(`${what} ${(peakMb(pid) - before).toFixed(1)}`)
      }

      await client.write(query(`select repeat('x', ${LARGE})`))
      while (client.count < MIB) await new Promise((resolve) => client.socket.once('data', resolve))
      // What a slow reader leaves to the sidecar, as long as that takes anything.
      client.socket.pause()
      for (let last = -1, quiet = 0; quiet < 2; ) {
        quiet = last === client.socket.bytesRead ? quiet + 1 : 0
        last = client.socket.bytesRead
        await wait(100)
      }
      look('row to a client that has stopped')
      client.socket.resume()
      assert.ok((await client.ready()) > LARGE)
      look('row')

      const head = Buffer.from('B\0\0\0\0\0\0\0\0\0\x01\0\0\0\0', 'latin1')
      head.writeInt32BE(head.length - 1 + LARGE + 2, 1)
      head.writeInt32BE(LARGE, head.length - 4)
      await client.write(parse('', 'select length($1::text)'), head)
      for (let n = 0; n < LARGE / MIB; n++) await client.write(PIECE)
      await client.write(Buffer.alloc(2), describePortal(''), execute(), sync)
      await client.ready()
      look('value')

      const line = copyData(`${'y'.repeat(MIB - 6)}\n`)
      await client.write(query('copy lines from stdin'))
      for (let n = 0; n < LARGE / MIB; n++) await client.write(line)
      await client.write(copyDone)
      await client.ready()
      look('COPY to the server')
      await client.write(query('copy lines to stdout'))
      assert.ok((await client.ready()) > 0.99 * LARGE)
      look('COPY from it')

      const growth = peakMb(pid) - before
      t.diagnostic(`${before.toFixed(1)} MiB before; most beyond that, in MiB: ${peaks.join(', ')}`)
      assert.ok(growth < BOUND_MIB, `${growth} MiB`)
      await client.write(message('X', ''))
    })(),
)
