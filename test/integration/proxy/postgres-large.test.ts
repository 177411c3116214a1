/** What large messages cost the process, with pooling: a bounded piece, whatever their size. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { postgresServer } from '../../helpers/postgres.ts'
import { copyData, message, query, scope, startup } from '../../helpers/postgres-client.ts'
import { postgresProcess } from '../../helpers/postgres-process.ts'
import { copyDone, describePortal, execute, parse, sync } from '../../helpers/postgres-stream.ts'

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
      const { port, pid } = await postgresProcess(
        server.port,
        { maxConnections: 1 },
        { queryLog: { minDuration: '0ms' } },
        ends,
      )
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
