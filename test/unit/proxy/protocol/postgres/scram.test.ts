import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Scram, ScramServer } from '../../../../../proxy/protocol/postgres/scram.ts'
import { onTime } from '../../../../helpers/on-time.ts'

// The example of RFC 7677 section 3.
const CLIENT_NONCE = 'rOprNGfwEbeRWgbNEkqO'
const SERVER_NONCE = '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0'
const SALT = 'W22ZaJ0SNY7soEsUEjb6gQ=='
const CLIENT_FIRST = `n,,n=user,r=${CLIENT_NONCE}`
const SERVER_FIRST = `r=${CLIENT_NONCE}${SERVER_NONCE},s=${SALT},i=4096`
const CLIENT_FINAL = `c=biws,r=${CLIENT_NONCE}${SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`
const SERVER_FINAL = 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='

describe("the server's side of SCRAM", () => {
  it('answers as the example of RFC 7677 does', async () => {
    const server = new ScramServer('pencil', SERVER_NONCE, SALT)
    assert.equal((await server.first(Buffer.from(CLIENT_FIRST))).toString(), SERVER_FIRST)
    assert.equal(server.final(Buffer.from(CLIENT_FINAL))?.toString(), SERVER_FINAL)
  })

  it('takes no proof that is changed in any byte, and none for another password', async () => {
    for (let at = 0; at < CLIENT_FINAL.length; at++) {
      const server = new ScramServer('pencil', SERVER_NONCE, SALT)
      await server.first(Buffer.from(CLIENT_FIRST))
      const changed = Buffer.from(CLIENT_FINAL)
      changed[at] = changed[at]! ^ 1
      // The last letter of the base64 has two bits that mean nothing.
      if (Buffer.from(changed.toString().slice(-44), 'base64').equals(Buffer.from(CLIENT_FINAL.slice(-44), 'base64'))) {
        continue
      }
      assert.equal(server.final(changed), null, `byte ${at}`)
    }
    const other = new ScramServer('pencils', SERVER_NONCE, SALT)
    await other.first(Buffer.from(CLIENT_FIRST))
    assert.equal(other.final(Buffer.from(CLIENT_FINAL)), null)
  })

  it('refuses first messages that are not of SCRAM, that bind a channel there is not, or are too long', async () => {
    for (const bad of [
      '',
      'n,,',
      'n,,n=a',
      'p=tls-server-end-point,,n=,r=abc',
      'x,,n=,r=abc',
      'n,,n=,r=a\u0001b',
      `n,,n=,r=${'a'.repeat(5000)}`,
    ]) {
      await assert.rejects(new ScramServer('a').first(Buffer.from(bad)), {
        message: 'its first SCRAM message is malformed',
      })
    }
  })
})

describe("the client's side of SCRAM", () => {
  it('proves its password to the server, and sees that the server knows it', async () => {
    for (const password of ['pencil', 'correct horse', 'pässwörd', '\ufb01']) {
      const client = new Scram(password, null)
      const server = new ScramServer(password)
      const final = await client.final(await server.first(client.first()))
      const proof = server.final(final)
      assert.ok(proof !== null)
      assert.equal(client.verify(proof), true)
      assert.equal(client.verify(Buffer.from(SERVER_FINAL)), false)
    }
  })

  it('refuses first messages of a server that answer another nonce, have no salt, or ask for endless work', async () => {
    const first = async (text: string) => new Scram('pencil', null, CLIENT_NONCE).final(Buffer.from(text))
    await assert.rejects(first(`r=other,s=${SALT},i=4096`), /its SCRAM nonce is not an answer to ours/)
    await assert.rejects(first(`r=${CLIENT_NONCE},s=${SALT},i=4096`), /its SCRAM nonce is not an answer to ours/)
    await assert.rejects(first(`r=${CLIENT_NONCE}x,s=${SALT},i=99999999`), /asks for 99999999 iterations/)
    // CVE-2026-6664 and 6665 of a pooler: lengths that overflow, nonces without end.
    for (const bad of [
      '',
      'r=',
      `r=${CLIENT_NONCE}x,i=4096`,
      `r=${CLIENT_NONCE}x,s=,i=1`,
      `r=${CLIENT_NONCE}x,s=${SALT},i=0`,
      `r=${CLIENT_NONCE}${'x'.repeat(5000)},s=${SALT},i=1`,
    ]) {
      await assert.rejects(first(bad), /its first SCRAM message is malformed/)
    }
  })

  it('digests a password beside the event loop, once for all logins with the same salt', () => {
    let attempts = 0
    return onTime(40, async () => {
      const server = `r=${CLIENT_NONCE}x,s=${SALT},i=1000000`
      // Another one for each attempt, since the digest of the first is kept.
      const password = `slow${++attempts}`
      const start = performance.now()
      const pending = new Scram(password, null, CLIENT_NONCE).final(Buffer.from(server))
      let ticks = 0
      const ticking = setInterval(() => ticks++, 5)
      const one = await pending
      clearInterval(ticking)
      const again = performance.now()
      const two = await new Scram(password, null, CLIENT_NONCE).final(Buffer.from(server))
      assert.ok(performance.now() - again < (again - start) / 2, 'it was digested once more')
      assert.deepEqual(two, one)
      assert.ok(ticks > 0, 'the event loop stood still')
    })
  })
})
