/**
 * Whatever a server says during the login, in whatever order and split wherever: it ends in one outcome, an application that is refused
 * gets an SQLSTATE, and no password goes out in clear text.
 * `FUZZ_INPUTS=1000000 FUZZ_SEED=1 node --test test/fuzz/postgres-login.test.ts` is the long mode: no time box.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PostgresLogin } from '../../proxy/policy/credential.ts'
import { Login, type LoginFailure } from '../../proxy/protocol/postgres/login.ts'
import { fieldOf, stateOf } from '../../proxy/protocol/postgres/respond.ts'
import { ScramServer } from '../../proxy/protocol/postgres/scram.ts'
import type { RawSocket } from '../../proxy/runtime/raw-socket.ts'
import { POSTGRES_PASSWORD } from '../helpers/postgres.ts'
import { MountedFiles, postgresProxy } from '../helpers/postgres-proxy.ts'
import { TestClient, tcpServer } from '../helpers/tcp.ts'
import { SeededRandom } from './random.ts'

const TIME_BOX_MS = 2000
const inputs = Number(process.env['FUZZ_INPUTS'] ?? 0)
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Date.now() / 1000))

const PASSWORD = 'correct horse, battery'
const LETTERS = 'RRRRRRRRRKSSZZENvDTCIAGWcdfHpQ12nst'

function bytesOf(random: SeededRandom, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.below(256)))
}

function typed(letter: string, body: Buffer, length = body.length + 4): Buffer {
  const head = Buffer.alloc(5)
  head.write(letter, 'latin1')
  head.writeUInt32BE(length >>> 0, 1)
  return Buffer.concat([head, body])
}

function asking(kind: number, rest: Buffer): Buffer {
  const body = Buffer.alloc(4)
  body.writeInt32BE(kind)
  return typed('R', Buffer.concat([body, rest]))
}

const AUTHENTICATION_OK = asking(0, Buffer.alloc(0))

/** One message that a server of bad manners may send. */
function makeMessage(random: SeededRandom): Buffer {
  const letter = random.pick([...LETTERS])
  if (random.below(30) === 0) return bytesOf(random, 1 + random.below(40))
  if (random.below(30) === 0) {
    const length = random.pick([-1, 0, 3, 4, 255, 65_536, 262_144, 0x7fffffff, 0x80000000])
    return typed(letter, bytesOf(random, random.below(20)), length)
  }
  if (letter === 'R') {
    const kind = random.pick([0, 0, 2, 3, 3, 5, 5, 6, 7, 8, 9, 10, 10, 10, 11, 11, 12, 12, 13, -1, 0x7fffffff])
    const mechanisms = [
      'SCRAM-SHA-256\0\0',
      'SCRAM-SHA-256-PLUS\0\0',
      'SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0',
      '\0',
      '',
    ]
    const text = ['r=abc,s=YWJj,i=4096', 'r=abc', 'v=YWJj', `r=${'a'.repeat(5000)}`, 'e=other-error', ...mechanisms]
    const rest = random.below(3) === 0 ? bytesOf(random, random.below(12)) : Buffer.from(random.pick(text))
    return asking(kind, rest)
  }
  if (letter === 'Z') return typed('Z', Buffer.from(random.pick(['I', 'I', 'I', 'T', 'E', '', 'II'])))
  if (letter === 'K') return typed('K', bytesOf(random, random.pick([8, 8, 8, 36, 260, 4, 0, 300])))
  if (letter === 'S')
    return typed('S', Buffer.from(random.pick(['TimeZone\0UTC\0', 'a\0b', '', '\0\0', 'x'.repeat(9000)])))
  if (letter === 'E') {
    const fields = [
      'SFATAL\0C28P01\0Mno\0\0',
      'SFATAL\0Mno\0\0',
      'C57P03\0\0',
      '',
      '\0',
      'Ctoo long\0\0',
      'FATAL:  old\n\0',
      'C28\0',
    ]
    return typed('E', Buffer.from(random.pick(fields)))
  }
  return typed(letter, bytesOf(random, random.below(60)))
}

interface Talk {
  readonly login: Login
  readonly written: Buffer[]
  readonly outcomes: { readonly welcome?: Buffer; readonly failure?: LoginFailure; readonly response?: Buffer }[]
}

function begin(): Talk {
  const written: Buffer[] = []
  const outcomes: Talk['outcomes'] = []
  const upstream = {
    isTls: false,
    handler: null,
    write: (bytes: Buffer) => {
      written.push(Buffer.from(bytes))
      return true
    },
    destroy() {},
  } as unknown as RawSocket
  const credential: PostgresLogin = {
    name: "Secret 'db', key 'password'",
    username: 'app',
    password: PASSWORD,
    tokens: null,
    client: null,
  }
  const login = new Login({
    upstream,
    address: { host: 'db', port: 5432 },
    startup: Buffer.from('startup'),
    credential,
    timeoutMs: 60_000,
    role: 'Any',
    onWelcome: (welcome) => outcomes.push({ welcome }),
    onFailure: (failure, response) => outcomes.push({ failure, response }),
  })
  return { login, written, outcomes }
}

/** Feeds bytes in pieces; a piece may be followed by a turn of the event loop, in which proofs are made. */
async function feed(random: SeededRandom, { login, outcomes }: Talk, bytes: Buffer): Promise<void> {
  const step = random.pick([1, 2, 3, 7, 100, 1e6])
  for (let at = 0; at < bytes.length && outcomes.length === 0; at += step) {
    const piece = bytes.subarray(at, at + step)
    login.onData(Buffer.from(piece), piece.length)
  }
}

function check({ written, outcomes }: Talk, shown: string): void {
  assert.equal(outcomes.length, 1, `one outcome: ${shown}`)
  const sent = Buffer.concat(written).toString('latin1')
  assert.equal(sent.includes(PASSWORD) || sent.includes(Buffer.from(PASSWORD).toString('base64')), false, shown)
  const [{ welcome, failure, response }] = outcomes as [Talk['outcomes'][number]]
  if (welcome !== undefined) {
    assert.ok(welcome.includes(AUTHENTICATION_OK), `let in: ${shown}`)
    return
  }
  assert.match(stateOf(response!), /^[0-9A-Z]{5}$/, shown)
  assert.ok(fieldOf(response!, 'M').length > 0 || failure!.sqlstate !== null, shown)
  assert.equal(response!.readInt32BE(1), response!.length - 1, shown)
}

describe('the login at a server', () => {
  it('ends in one outcome whatever comes, with an SQLSTATE, and without a password in clear text', async (t) => {
    const random = new SeededRandom(seed)
    const started = performance.now()
    const counts = { inputs: 0, welcomes: 0 }
    // A machine that stands still for the time must not leave nothing tried.
    const least = inputs > 0 ? inputs : 300
    while (counts.inputs < least || (inputs === 0 && performance.now() < started + TIME_BOX_MS)) {
      const talk = begin()
      const isMannered = random.below(4) === 0
      const parts = Array.from({ length: 1 + random.below(8) }, () => {
        return isMannered ? typed('S', Buffer.from('TimeZone\0UTC\0')) : makeMessage(random)
      })
      if (isMannered || random.below(3) === 0) parts.push(AUTHENTICATION_OK, typed('Z', Buffer.from('I')))
      const bytes = Buffer.concat(parts)
      const shown = `seed ${seed}, input ${counts.inputs}: ${bytes.subarray(0, 300).toString('latin1')}`
      await feed(random, talk, bytes)
      if (random.below(8) === 0) await new Promise((resolve) => setImmediate(resolve))
      if (random.below(2) === 0) talk.login.onEnd()
      talk.login.onClose()
      check(talk, JSON.stringify(shown))
      if (talk.outcomes[0]?.welcome !== undefined) counts.welcomes++
      counts.inputs++
    }
    t.diagnostic(`seed ${seed}: ${counts.inputs} logins, ${counts.welcomes} were let in`)
    assert.ok(counts.welcomes > 0, 'some are let in')
  })

  it('is let in by SCRAM only by a server that goes to its end, wherever the bytes are split and one of them is changed', async () => {
    const random = new SeededRandom(seed)
    for (let n = 0; n < 60; n++) {
      const spoilt = n % 2 === 0 ? -1 : random.below(2)
      const talk = begin()
      const server = new ScramServer(PASSWORD)
      const answer = async () => {
        while (talk.written.length < 2 && talk.outcomes.length === 0)
          await new Promise((resolve) => setImmediate(resolve))
        return talk.written.pop()
      }
      await feed(random, talk, asking(10, Buffer.from('SCRAM-SHA-256\0\0')))
      const initial = (await answer())!
      const first = await server.first(initial.subarray(5 + 'SCRAM-SHA-256\0'.length + 4))
      if (spoilt === 0) first[2 + random.below(20)]! ^= 1
      await feed(random, talk, asking(11, first))
      const proof = await answer()
      const final = proof === undefined ? null : server.final(proof.subarray(5))
      if (final !== null) {
        if (spoilt === 1) final[2 + random.below(40)]! ^= 2
        await feed(random, talk, asking(12, final))
        await feed(random, talk, Buffer.concat([asking(0, Buffer.alloc(0)), typed('Z', Buffer.from('I'))]))
      }
      talk.login.onClose()
      check(talk, `SCRAM ${seed}, ${n}`)
      assert.equal(talk.outcomes[0]?.welcome !== undefined, spoilt === -1, `SCRAM ${seed}, ${n}`)
    }
  })

  it('tells the application an SQLSTATE over real sockets, with and without a pool, and goes on', async (t) => {
    const random = new SeededRandom(seed)
    const ends: (() => unknown)[] = []
    const mounts = new MountedFiles()
    try {
      mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
      const server = await tcpServer((socket) => {
        socket.on('error', () => {})
        socket.once('data', () => {
          for (let n = random.below(6); n >= 0; n--) socket.write(makeMessage(random))
          socket.end()
        })
      })
      ends.push(() => server.close())
      const counts: Record<string, number> = {}
      for (const mode of ['Disabled', 'Transaction'] as const) {
        const upstream = {
          name: 'db',
          endpoints: [{ host: '127.0.0.1', port: server.port, priority: 0, weight: 1 }],
          auth: { postgres: { username: 'app', password: { secretKeyRef: { name: 'db', key: 'password' } } } },
          circuitBreaker: { consecutiveFailures: 1000 },
        }
        const spec = { upstreams: [upstream], timeouts: { connect: '1s' }, postgres: { pooling: { mode } } }
        const proxy = await postgresProxy(spec as unknown as Parameters<typeof postgresProxy>[0], mounts, ends)
        const states = Array.from({ length: 20 }, async (_, n) => {
          const client = new TestClient({ port: proxy.port })
          ends.push(() => client.socket.destroy())
          const text = Buffer.from('user\0x\0database\0d\0\0')
          const head = Buffer.from([0, 0, 0, 8 + text.length, 0, 3, 0, 0])
          client.write(Buffer.concat([head, text]))
          client.end()
          const answer = await client.ended()
          const state =
            /^E.{4}(?:.*?\0)?C([0-9A-Z]{5})\0/s.exec(answer)?.[1] ?? (answer.startsWith('R') ? 'let in' : 'none')
          assert.notEqual(state, 'none', `seed ${seed}, ${mode}, ${n}: ${JSON.stringify(answer)}`)
          return state
        })
        for (const state of await Promise.all(states)) counts[state] = (counts[state] ?? 0) + 1
      }
      t.diagnostic(`seed ${seed}: ${JSON.stringify(counts)}`)
    } finally {
      for (const end of ends.reverse()) await end()
      mounts.remove()
    }
  })
})
