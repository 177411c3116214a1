/**
 * Whatever its owner calls from within its callbacks, and however the peer ends it: a socket tells of its close once and last, tells
 * nothing to an owner that destroyed it, and brings in both directions the bytes that were written, each once and in their order.
 * `FUZZ_INPUTS=10000 FUZZ_SEED=1 node --test test/fuzz/raw-socket.test.ts` is the long mode: no time box.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createSecureContext, TLSSocket } from 'node:tls'
import type { Destination } from '../../proxy/runtime/handles.ts'
import { openTcp, type RawSocket, type SocketHandler } from '../../proxy/runtime/raw-socket.ts'
import { TlsSocket } from '../../proxy/runtime/tls-socket.ts'
import { Pki } from '../helpers/pki.ts'
import { SeededRandom } from './random.ts'

const TIME_BOX_MS = 2000
const LANES = 8
const inputs = Number(process.env['FUZZ_INPUTS'] ?? 0)
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Date.now() / 1000))

const KINDS = ['TCP', 'Unix', 'TLSv1.2', 'TLSv1.3', 'TLSv1.3 on Unix'] as const
const PIECES = [0, 1, 5, 1000, 16_384, 17_000, 70_000, 400_000]

/** What both sides write, so that each knows what has to come; never the same 256 bytes twice within it. */
const TEXT = Buffer.alloc(1 << 22)
for (let at = 0; at < TEXT.length; at++) TEXT[at] = at * 31 + (at >> 8) * 7 + (at >> 16) * 3

describe(`a socket whose owner does anything at any time (seed ${seed})`, () => {
  const pki = new Pki()
  after(() => pki.remove())
  const leaf = pki.authority().issue()
  const contexts = {
    'TLSv1.2': createSecureContext({ ...leaf, maxVersion: 'TLSv1.2' }),
    'TLSv1.3': createSecureContext(leaf),
  }
  const client = createSecureContext()
  let paths = 0

  /** One connection with a script for each side; throws what was wrong with it. */
  async function play(script: number): Promise<void> {
    const ours = new SeededRandom(script)
    const theirs = new SeededRandom(script + 0x5555)
    const kind = ours.pick(KINDS)
    const version = kind === 'Unix' || kind === 'TCP' ? null : kind === 'TLSv1.2' ? kind : 'TLSv1.3'
    const log: string[] = []
    let problem: string | null = null
    const must = (isRight: boolean, what: string): void => {
      if (!isRight) problem ??= `${what}, script ${script}, ${kind}: ${log.join(' ')}`
    }
    const follows = (bytes: Buffer, at: number): boolean => TEXT.subarray(at, at + bytes.length).equals(bytes)

    const peer = { got: 0, wrote: 0, end: 'none', over: Promise.withResolvers<void>() }
    const accepted: Socket[] = []
    const server = createServer({ allowHalfOpen: true }, (plain) => {
      accepted.push(plain)
      plain.on('error', () => {}).on('close', () => peer.over.resolve())
      const socket: Socket =
        version === null ? plain : new TLSSocket(plain, { isServer: true, secureContext: contexts[version] })
      socket.on('error', () => {
        peer.end = 'error'
      })
      socket.on('end', () => {
        peer.end = 'end'
        peer.over.resolve()
      })
      socket.on('data', (data: Buffer) => {
        must(follows(data, peer.got), `the peer got other bytes behind ${peer.got}`)
        peer.got += data.length
        if (theirs.below(6) > 0) return
        socket.pause()
        setTimeout(() => socket.resume(), theirs.below(5))
      })
      let steps = 1 + theirs.below(6)
      const step = (): void => {
        if (steps-- <= 0 || socket.destroyed) return
        const choice = theirs.below(14)
        const size = theirs.pick(PIECES)
        if (choice < 8 && socket.writable && peer.wrote + size < TEXT.length) {
          socket.write(TEXT.subarray(peer.wrote, peer.wrote + size))
          peer.wrote += size
        } else if (choice === 8) socket.end()
        else if (choice === 9 && theirs.below(3) === 0) plain.destroy()
        else if (choice === 10 && theirs.below(3) === 0 && kind === 'TCP') plain.resetAndDestroy()
        else if (choice === 11 && theirs.below(3) === 0) plain.end()
        setTimeout(step, theirs.below(4))
      }
      step()
    })
    const path = join(tmpdir(), `ambassador-fuzz-${process.pid}-${paths++}.sock`)
    server.listen(kind.includes('Unix') ? { path } : { host: '127.0.0.1', port: 0 })
    await once(server, 'listening')
    const to: Destination = kind.includes('Unix')
      ? { path }
      : { address: '127.0.0.1', port: (server.address() as AddressInfo).port }

    let [got, wrote, closes, isOurs, isEnded] = [0, 0, 0, false, false]
    let left = 3 + ours.below(20)
    let raw: RawSocket = null!
    let error: Error | null = null
    const own = [0, 1].map(() => Buffer.allocUnsafeSlow(64 * 1024))
    const closed = Promise.withResolvers<void>()

    const write = (): void => {
      const size = ours.pick(PIECES)
      if (wrote + size > TEXT.length) return
      const data = Buffer.from(TEXT.subarray(wrote, wrote + size))
      const before = raw.bytesWritten
      const isFree = raw.write(data)
      wrote += raw.bytesWritten - before
      if (isFree) data.fill(0)
    }
    const calls: readonly (readonly [name: string, call: (where: string) => void])[] = [
      ...Array.from({ length: 4 }, () => ['write', write] as const),
      ['pause', () => raw.pause()],
      ['resume', () => raw.resume()],
      ['later', () => void setTimeout(act, ours.below(5), 'later')],
      [
        'readInto',
        (where) => {
          if (where === 'data') raw.readInto(ours.pick([null, ...own]))
        },
      ],
      [
        'handler',
        () => {
          raw.handler = handler()
        },
      ],
      ['end', () => ours.below(2) === 0 && raw.end()],
      ['ask', () => [raw.remote, raw.local, raw.isSlow, raw.unsent, raw.isUnix && raw.isAbandoned()]],
      ['ask', () => raw instanceof TlsSocket && raw.peerCertificate],
      ['destroy', () => leave(() => raw.destroy())],
      ['reset', () => leave(() => raw.reset())],
    ]
    const leave = (how: () => void): void => {
      if (ours.below(3) > 0) return
      isOurs = true
      how()
    }
    function act(where: string): void {
      for (let count = ours.below(3); count > 0 && left-- > 0; count--) {
        const [name, call] = ours.pick(calls)
        log.push(`${where}:${name}`)
        call(where)
      }
      if (raw.isPaused && ours.below(2) === 0) setTimeout(() => raw.resume(), ours.below(6))
    }
    const handler = (): SocketHandler => ({
      onData(chunk, length) {
        must(!isOurs && !isEnded && closes === 0, 'data behind an end')
        must(follows(chunk.subarray(0, length), got), `other bytes behind ${got}`)
        got += length
        act('data')
      },
      onEnd() {
        must(!isOurs && !isEnded && closes === 0, 'a second end')
        isEnded = true
        act('end')
      },
      onDrain() {
        must(!isOurs && closes === 0, 'a drain behind the end')
        must(raw.backlog === 0, 'a drain with a backlog')
        act('drain')
      },
      onClose(why) {
        must(++closes === 1, 'a second close')
        error = why
        if (raw !== null) act('close')
        closed.resolve()
      },
    })
    const secure = { context: client, serverName: 'localhost', sentName: null, session: undefined, alpn: null }
    openTcp(to, {
      ...handler(),
      onConnect(plain) {
        raw = plain
        if (version === null) {
          act('connect')
          plain.start()
          return
        }
        const onSecure = (): void => act('secure')
        raw = new TlsSocket(plain, { ...secure, isUnverified: true }, { ...handler(), onSecure }, () => act('session'))
        if (ours.below(10) === 0) leave(() => raw.destroy())
      },
    })
    // Whatever is left of it ends here.
    const ends = setTimeout(() => {
      raw?.resume()
      setTimeout(() => {
        isOurs = true
        raw?.destroy()
      }, 50)
    }, 50)
    await closed.promise
    clearTimeout(ends)
    must(raw === null || raw.destroyed, 'closed and not destroyed')
    must(got <= peer.wrote, `got ${got} of ${peer.wrote}`)
    if (!isOurs && error === null && raw !== null) {
      await peer.over.promise
      if (peer.end === 'end') must(peer.got === wrote, `the peer saw an end behind ${peer.got} of ${wrote}`)
    }
    for (const socket of accepted) socket.destroy()
    server.close()
    rmSync(path, { force: true })
    assert.equal(problem, null)
  }

  it('is told of everything once, in order, and of nothing behind the end', async () => {
    const begun = performance.now()
    let next = seed * 1000
    const isOver = (): boolean => (inputs > 0 ? next >= seed * 1000 + inputs : performance.now() - begun > TIME_BOX_MS)
    const lane = async (): Promise<void> => {
      do await play(next++)
      while (!isOver())
    }
    await Promise.all(Array.from({ length: LANES }, lane))
    assert.ok(next >= seed * 1000 + LANES)
  })
})
