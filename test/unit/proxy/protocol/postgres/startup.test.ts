import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  parametersOf,
  Startup,
  type StartupOwner,
  startupFor,
  startupPacket,
} from '../../../../../proxy/protocol/postgres/startup.ts'
import { NO_HANDLER, type RawSocket } from '../../../../../proxy/runtime/raw-socket.ts'

/** What a front of an application makes of bytes, in pieces of this size. */
function read(all: Buffer, size: number): string[] {
  const told: string[] = []
  const socket = {
    handler: NO_HANDLER,
    write: (data: Buffer) => told.push(`writes ${data.toString('latin1')}`) > 0,
    destroy: () => told.push('destroys'),
  }
  let isOver = false
  const owner: StartupOwner = {
    clientPassword: null,
    onStartup: (_front, packet, rest) => {
      isOver = true
      told.push(`startup ${packet.toString('hex')} and ${rest.toString('hex')}`)
    },
    onCancel: (_front, key) => {
      isOver = true
      told.push(`cancel ${key.toString('hex')}`)
    },
    onGarbage: (_front, detail) => {
      isOver = true
      told.push(`garbage: ${detail}`)
    },
    onRefused: () => told.push('refused'),
    onGone: () => {},
  }
  const front = new Startup(owner, () => socket as unknown as RawSocket)
  for (let at = 0; at < all.length && !isOver; at += size) {
    const piece = Buffer.from(all.subarray(at, at + size))
    front.onData(piece, piece.length)
    piece.fill(0xff)
  }
  front.onClose()
  return told
}

const words = (...numbers: number[]) => {
  const bytes = Buffer.alloc(4 * numbers.length)
  for (const [index, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * index)
  return bytes
}
const PACKET = startupPacket({ user: 'ann', database: 'shop', application_name: 'Ã¤\xe4' })

describe('the begin of a connection of PostgreSQL', () => {
  it('is read the same wherever it is split', () => {
    const all = Buffer.concat([words(8, 80_877_104), words(8, 80_877_103), PACKET])
    const whole = [`writes N`, 'writes N', `startup ${PACKET.toString('hex')} and `]
    for (let size = 1; size <= all.length; size++) assert.deepEqual(read(all, size), whole, `pieces of ${size}`)
    const cancel = words(16, 80_877_102, 1, 2)
    for (let size = 1; size <= 16; size++) assert.deepEqual(read(cancel, size), ['cancel 0000000100000002'])
  })

  it('is refused with what is wrong with it', () => {
    const cases: [bytes: Buffer, says: string][] = [
      [words(10_001, 196_608), 'garbage: a startup packet of 10001 bytes, it has 8 to 10000'],
      [words(0x00989680, 196_608), 'garbage: a startup packet of 10000000 bytes, it has 8 to 10000'],
      [words(0xffffffff, 196_608), 'garbage: a startup packet of -1 bytes, it has 8 to 10000'],
      [words(7, 196_608), 'garbage: a startup packet of 7 bytes, it has 8 to 10000'],
      [words(8, 131_072), 'garbage: protocol 2.0 is not spoken, use 3.0 or 3.2'],
      [Buffer.from('GET / HTTP/1.1\r\n'), 'garbage: a startup packet of 1195725856 bytes, it has 8 to 10000'],
    ]
    for (const [bytes, says] of cases) assert.deepEqual(read(bytes, bytes.length), [says])
  })

  it('has parameters in pairs, byte for byte, or is malformed', () => {
    assert.deepEqual(
      [...(parametersOf(PACKET) ?? [])],
      [
        ['user', 'ann'],
        ['database', 'shop'],
        ['application_name', 'Ã¤\xe4'],
      ],
    )
    for (const text of ['user', 'user\0', 'user\0a', 'user\0a\0', 'user\0a\0\0\0', '\0a\0\0', 'user\0a\0b\0\0']) {
      assert.equal(parametersOf(Buffer.concat([words(8, 196_608), Buffer.from(text)])), null, JSON.stringify(text))
    }
  })

  it('goes to the server with our user and the database that the application means', () => {
    const sent = (given: Record<string, string>) => {
      const packet = startupPacket(given)
      return Object.fromEntries(parametersOf(startupFor(packet, parametersOf(packet)!, 'orders')) ?? [])
    }
    assert.deepEqual(sent({ user: 'ann', options: '-c a=b' }), { user: 'orders', options: '-c a=b', database: 'ann' })
    assert.deepEqual(sent({ user: 'ann', database: 'shop' }), { user: 'orders', database: 'shop' })
    assert.deepEqual(sent({}), { user: 'orders', database: 'orders' })
  })

  it('ends in one verdict, or waits for more, whatever comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.integer({ min: 1, max: 9 }), (bytes, size) => {
        const one = read(Buffer.from(bytes), 64)
        const verdicts = one.filter((each) => !each.startsWith('writes'))
        assert.ok(verdicts.length <= 1)
        if (!one.some((each) => each.startsWith('startup'))) assert.deepEqual(read(Buffer.from(bytes), size), one)
      }),
      { numRuns: 2000, seed: 3 },
    )
  })
})
