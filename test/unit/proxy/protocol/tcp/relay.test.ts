import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Relay, type RelayEnd, type RelayOwner } from '../../../../../proxy/protocol/tcp/relay.ts'
import { CHUNK_BYTES, keepScratch, lend, lentPieces, takeBack } from '../../../../../proxy/runtime/buffers.ts'
import { NO_HANDLER, type RawSocket, type SocketHandler } from '../../../../../proxy/runtime/raw-socket.ts'

/** The memory that all sockets of this test read into unless they were given their own. */
const shared = Buffer.alloc(CHUNK_BYTES)

/** A socket whose kernel takes what the test says, and which notices when memory that it still holds is changed. */
class FakeSocket {
  handler: SocketHandler = NO_HANDLER
  isPaused = false
  ended = false
  destroyed = false
  isReset = false
  endSent = false
  backlog = 0
  /** Everything that was written, as it was at the time. */
  written = ''
  /** Whether the next write is taken at once. */
  takes = true
  #held: { readonly memory: Buffer; readonly content: string }[] = []
  #lent: Buffer[] = []
  #next: Buffer | null = null
  #memory: Buffer = shared

  write(data: Buffer): boolean {
    const content = data.toString('latin1')
    this.written += content
    if (this.takes && this.backlog === 0) return true
    this.#held.push({ memory: data, content })
    this.backlog += data.length
    return false
  }

  /** As a RawSocket does it. */
  lend(data: Buffer, memory: Buffer): boolean {
    if (this.write(data)) return true
    keepScratch(memory)
    lend()
    this.#lent.push(memory)
    return false
  }

  #giveBack(): void {
    for (const memory of this.#lent.splice(0)) takeBack(memory)
  }

  /** Bytes arrive: into the memory that this socket reads into now. */
  arrive(letter: string, length: number): void {
    this.#memory.fill(letter, 0, length)
    this.#next = null
    this.handler.onData(this.#memory, length)
    if (this.#next !== null) this.#memory = this.#next
    // Whatever reads next into the shared memory overwrites it.
    shared.fill('#')
  }

  /** The kernel takes all that is left. */
  drain(): void {
    if (this.backlog === 0) return
    this.verifyHeld()
    this.#held = []
    this.backlog = 0
    this.#giveBack()
    this.handler.onDrain()
  }

  verifyHeld(): void {
    for (const { memory, content } of this.#held)
      assert.equal(memory.toString('latin1') === content, true, 'held memory was changed')
  }

  readInto(buffer: Buffer | null): void {
    this.#next = buffer ?? shared
  }
  pause(): void {
    this.isPaused = true
  }
  resume(): void {
    this.isPaused = false
  }
  end(): void {
    this.endSent = true
  }
  close(error: Error | null = null): void {
    this.destroyed = true
    this.#giveBack()
    const { handler } = this
    this.handler = NO_HANDLER
    handler.onClose(error)
  }
  destroy(): void {
    this.destroyed = true
  }
  reset(): void {
    this.destroyed = true
    this.isReset = true
  }
}

function relay(parts: { early?: Buffer; clientEnded?: boolean; takes?: boolean } = {}) {
  const client = new FakeSocket()
  const upstream = new FakeSocket()
  upstream.takes = parts.takes ?? true
  const ends: RelayEnd[] = []
  const log: string[] = []
  const owner: RelayOwner = {
    idleMs: null,
    farewell: () => null,
    onUpstreamClosed: () => log.push('upstream closed'),
    onRelayEnd: (end) => {
      log.push('end')
      ends.push(end)
    },
  }
  const made = new Relay(owner, client as unknown as RawSocket, upstream as unknown as RawSocket)
  made.start(parts.early ?? null, parts.clientEnded ?? false)
  return { client, upstream, relay: made, ends, log }
}

describe('relay', () => {
  it('writes what came early first, and reads on only when the upstream has taken it', () => {
    const { client, upstream } = relay({ early: Buffer.from('early'), takes: false })
    assert.equal(upstream.written, 'early')
    assert.equal(client.isPaused, true)
    upstream.drain()
    assert.equal(client.isPaused, false)
  })

  it('passes on a half-close that came early', () => {
    const { upstream } = relay({ early: Buffer.from('early'), clientEnded: true })
    assert.deepEqual([upstream.written, upstream.endSent], ['early', true])
  })

  it('tells that the upstream is closed before the client is, and of the end once', () => {
    const { client, upstream, ends, log } = relay()
    client.ended = true
    client.handler.onEnd()
    upstream.ended = true
    upstream.handler.onEnd()
    assert.deepEqual([client.endSent, upstream.endSent], [true, true])
    upstream.close()
    assert.deepEqual(log, ['upstream closed'])
    client.close()
    assert.deepEqual(log, ['upstream closed', 'end'])
    assert.deepEqual(ends, [{ kind: 'closed', by: 'client' }])
    assert.equal(client.isReset, false)
  })

  it('resets the other side when one breaks, also after a half-close', () => {
    for (const by of ['client', 'upstream'] as const) {
      const made = relay()
      const other = by === 'client' ? 'upstream' : 'client'
      made[by].ended = true
      made[by].handler.onEnd()
      const error = new Error('broken')
      made[by].close(error)
      assert.equal(made[other].isReset, true)
      made[other].close()
      assert.deepEqual(made.ends, [{ kind: 'broken', by, error }])
    }
  })

  it('keeps the order and content of the bytes of many relays and never changes memory that a socket still holds', () => {
    const step = fc.record({
      which: fc.nat({ max: 2 }),
      isFromClient: fc.boolean(),
      what: fc.constantFrom('arrive', 'arrive', 'arrive', 'arrive', 'drain', 'drain', 'renew'),
      length: fc.constantFrom(100, 8_000, 20_000, 40_000, 50_000, CHUNK_BYTES),
      takes: fc.boolean(),
      // A TLS socket that was paused may still deliver what it had decrypted.
      isLate: fc.constantFrom(false, false, false, true),
    })
    fc.assert(
      fc.property(fc.array(step, { minLength: 100, maxLength: 300, size: 'max' }), (steps) => {
        const relays = [relay(), relay(), relay()]
        const sent = relays.map(() => ({ client: '', upstream: '' }))
        let letter = 0
        for (const { which, isFromClient, what, length, takes, isLate } of steps) {
          const made = relays[which]!
          const [from, to] = isFromClient ? [made.client, made.upstream] : [made.upstream, made.client]
          to.takes = takes
          if (what === 'drain') to.drain()
          else if (what === 'arrive' && (!from.isPaused || isLate)) {
            const char = String.fromCharCode(97 + (letter++ % 26))
            sent[which]![isFromClient ? 'upstream' : 'client'] += char.repeat(length)
            from.arrive(char, length)
            // Never more than what was under way when reading stopped.
            if (to.backlog > 0) assert.equal(from.isPaused, true)
          } else if (what === 'renew') {
            made.client.drain()
            made.upstream.drain()
            made.upstream.close(new Error('over'))
            made.client.close()
            relays[which] = relay()
            sent[which] = { client: '', upstream: '' }
          }
          for (const each of relays) {
            each.client.verifyHeld()
            each.upstream.verifyHeld()
          }
        }
        for (const [i, each] of relays.entries()) {
          assert.equal(each.upstream.written === sent[i]!.upstream, true)
          assert.equal(each.client.written === sent[i]!.client, true)
          each.client.close()
          each.upstream.close()
        }
        assert.equal(lentPieces(), 0)
      }),
      { numRuns: 150 },
    )
  })
})
