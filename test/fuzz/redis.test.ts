/**
 * Wherever bytes of Redis are split, the parsers tell the same; of whole messages they tell every one, and of broken ones none but those
 * before. `FUZZ_INPUTS=1000000 FUZZ_SEED=1 node --test test/fuzz/redis.test.ts` is the long mode: no time box.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ReplyReader } from '../../proxy/upstream/redis/resp.ts'
import { type Told, tellCommands, tellReplies } from '../helpers/redis-codec.ts'
import { SeededRandom } from './random.ts'

const TIME_BOX_MS = 1500
const inputs = Number(process.env['FUZZ_INPUTS'] ?? 0)
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Date.now() / 1000))

const NAMES = ['GET', 'set', 'Auth', 'HELLO', 'select', 'CLIENT', 'reset', 'MULTI', 'blpop', 'no.such', 'x'.repeat(30)]
const BYTES = '\r\n*$:+-_%>|~ "\'09azPING\0\xff'

function text(random: SeededRandom): string {
  return Array.from({ length: random.below(random.below(4) === 0 ? 300 : 12) }, () => random.pick([...BYTES])).join('')
}

function makeCommand(random: SeededRandom): string {
  if (random.below(5) === 0) return `${random.pick(NAMES)} ${'abc '.repeat(random.below(4))}\r\n`
  const args = [random.pick(NAMES), ...Array.from({ length: random.below(6) }, () => text(random))]
  return `*${args.length}\r\n${args.map((arg) => `$${arg.length}\r\n${arg}\r\n`).join('')}`
}

function makeReply(random: SeededRandom, isNew: boolean, depth = 0): string {
  const kinds = isNew ? '+-:$*_#,(=!%~>|' : '+-:$*'
  const kind = depth > 3 ? '+' : random.pick([...kinds])
  const count = random.below(4)
  const list = (of: number) => Array.from({ length: of }, () => makeReply(random, isNew, depth + 1)).join('')
  const word = random.pick(['OK', 'READONLY x', 'PONG', 'anything at all', ''])
  if (kind === ':') return `:${random.pick(['', '-'])}${random.below(100_000)}\r\n`
  if (kind === '$' || kind === '=' || kind === '!') {
    if (random.below(6) === 0 && kind === '$') return '$-1\r\n'
    const value = text(random)
    return `${kind}${value.length}\r\n${value}\r\n`
  }
  if (kind === '*' && random.below(6) === 0) return '*-1\r\n'
  if (kind === '*' || kind === '~' || kind === '>') return `${kind}${count}\r\n${list(count)}`
  if (kind === '%') return `%${count}\r\n${list(2 * count)}`
  if (kind === '|') return `|1\r\n+a\r\n:1\r\n${makeReply(random, isNew, depth + 1)}`
  return `${kind}${word}\r\n`
}

/** Changes, drops or adds a byte somewhere. */
function spoil(random: SeededRandom, bytes: string): string {
  const at = random.below(bytes.length)
  const more = random.pick([...BYTES])
  return bytes.slice(0, at) + random.pick(['', more, bytes[at]! + more]) + bytes.slice(at + 1)
}

const whole = () => Number.POSITIVE_INFINITY

function same(a: Told, b: Told, bytes: string, reads: string): void {
  const shown = `${JSON.stringify(bytes)} in reads of ${reads}`
  assert.deepEqual(a.lines, b.lines, shown)
  assert.equal(a.failure, b.failure, shown)
  if (a.failure === null) assert.equal(a.isIncomplete, b.isIncomplete, shown)
}

function run(what: (random: SeededRandom) => void): number {
  const random = new SeededRandom(seed)
  const started = performance.now()
  let count = 0
  // A machine that stands still for the time must not leave nothing tried.
  const least = inputs > 0 ? inputs : 300
  while (count < least || (inputs === 0 && performance.now() - started < TIME_BOX_MS)) {
    what(random)
    count++
  }
  return count
}

describe('the parsers of Redis', () => {
  for (const [what, make, tell] of [
    ['commands', makeCommand, tellCommands],
    ['replies', (random: SeededRandom) => makeReply(random, true), tellReplies],
  ] as const) {
    it(`tell the same of ${what}, broken ones too, however they are split`, (t) => {
      let refused = 0
      const count = run((random) => {
        let bytes = Array.from({ length: 1 + random.below(4) }, () => make(random)).join('')
        if (random.below(2) === 0) bytes = spoil(random, bytes)
        const raw = Buffer.from(bytes, 'latin1')
        const expected = tell(raw, whole)
        if (expected.failure !== null) refused++
        same(
          tell(raw, () => 1),
          expected,
          bytes,
          '1',
        )
        const cut = 1 + random.below(raw.length + 1)
        same(
          tell(raw, (at) => (at < cut ? cut - at : raw.length)),
          expected,
          bytes,
          `${cut} and the rest`,
        )
      })
      t.diagnostic(`seed ${seed}: ${count} inputs, ${refused} refused`)
      assert.ok(refused > 0 && refused < count)
    })
  }

  it('tell every whole command', () => {
    run((random) => {
      const all = Array.from({ length: 1 + random.below(5) }, () => makeCommand(random))
      const told = tellCommands(Buffer.from(all.join(''), 'latin1'), whole)
      assert.equal(told.failure, null)
      assert.equal(told.isIncomplete, false)
      assert.equal(told.lines.length, all.length, JSON.stringify(all))
    })
  })

  it('tell every whole reply, as the reader does that gathers them', () => {
    run((random) => {
      const all = Array.from({ length: 1 + random.below(5) }, () => makeReply(random, false))
      const raw = Buffer.from(all.join(''), 'latin1')
      const told = tellReplies(raw, whole)
      assert.equal(told.failure, null)
      assert.equal(told.lines.length, all.length, JSON.stringify(all))
      const reader = new ReplyReader()
      let replies = 0
      for (let at = 0; at < raw.length; ) {
        const to = Math.min(raw.length, at + 1 + random.below(20))
        reader.feed(raw.subarray(at, to), to - at)
        while (reader.next() !== undefined) replies++
        at = to
      }
      assert.equal(reader.failure, null, JSON.stringify(all))
      assert.equal(replies, all.length, JSON.stringify(all))
    })
  })
})
