import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { Credential } from '../../../../proxy/config/credentials.ts'
import { Volumes } from '../../../helpers/volume.ts'

const volumes = new Volumes()
after(() => volumes.remove())
const secret = (name: string, key: string) => ({ kind: 'secret', name, key }) as const
const line = (credential: Credential) => credential.line?.toString()

describe('Credential', () => {
  it('makes the header line of a bearer token', () => {
    volumes.secret('token', { token: 'abc\n' })
    const credential = new Credential({ kind: 'bearer', token: secret('token', 'token') }, volumes.dirs)
    assert.equal(credential.line, null)
    assert.deepEqual(credential.refresh(), [{ ref: secret('token', 'token'), state: 'Found', message: '' }])
    assert.equal(credential.name, 'authorization')
    assert.equal(line(credential), 'Authorization: Bearer abc\r\n')
    assert.equal(credential.failure, null)
  })

  it('makes the header line of a user name and a password', () => {
    volumes.secret('basic', { username: 'Aladdin', password: 'open sesame' })
    const credential = new Credential(
      {
        kind: 'basic',
        username: secret('basic', 'username'),
        password: secret('basic', 'password'),
      },
      volumes.dirs,
    )
    credential.refresh()
    // The example of RFC 7617 section 2.
    assert.equal(line(credential), 'Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n')
  })

  it('refuses a user name with a colon, which would move a part of it into the password', () => {
    volumes.secret('colon', { username: 'a:b', password: 'c' })
    const credential = new Credential(
      {
        kind: 'basic',
        username: secret('colon', 'username'),
        password: secret('colon', 'password'),
      },
      volumes.dirs,
    )
    const [report] = credential.refresh()
    assert.equal(report?.state, 'Invalid')
    assert.equal(credential.failure, "auth.basic: Secret 'colon', key 'username' has a colon, a user name has none")
  })

  it('keeps the case of a header name and matches it in lower case', () => {
    volumes.secret('api', { key: 'k-1' })
    const credential = new Credential({ kind: 'header', name: 'X-Api-Key', value: secret('api', 'key') }, volumes.dirs)
    credential.refresh()
    assert.equal(credential.name, 'x-api-key')
    assert.equal(line(credential), 'X-Api-Key: k-1\r\n')
  })

  it('takes a rotated value, and keeps the last good one when the new one is unusable or gone', () => {
    volumes.secret('rotated', { token: 'one' })
    const credential = new Credential({ kind: 'bearer', token: secret('rotated', 'token') }, volumes.dirs)
    credential.refresh()
    volumes.secret('rotated', { token: 'two' })
    credential.refresh()
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    volumes.secret('rotated', { token: 'thr\nee' })
    assert.equal(credential.refresh()[0]?.state, 'Invalid')
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    volumes.secret('rotated', {})
    assert.equal(credential.refresh()[0]?.state, 'Missing')
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    assert.equal(credential.failure, null)
  })

  it('says what to do while there was never a good value', () => {
    const credential = new Credential({ kind: 'bearer', token: secret('unmounted', 'token') }, volumes.dirs)
    credential.refresh()
    assert.equal(credential.line, null)
    const why = "auth.bearer: Secret 'unmounted' is not mounted in this pod, restart the pod to mount it"
    assert.equal(credential.failure, why)
  })

  it('takes the token of the service account with its end, and another one as soon as the kubelet writes it', () => {
    const auth = { kind: 'serviceAccountToken', token: { kind: 'token', name: 'vault-1', audience: 'vault' } } as const
    const credential = new Credential(auth, volumes.dirs)
    const unmounted =
      "auth.serviceAccountToken: token for audience 'vault' is not mounted in this pod, restart the pod to mount it"
    assert.deepEqual(credential.refresh(), [{ ref: auth.token, state: 'NotMounted', message: unmounted }])
    const end = Math.floor(Date.now() / 1000) + 600
    volumes.token('vault-1', `${jwt({ aud: ['vault'], exp: end })}\n`)
    credential.refresh()
    assert.equal(line(credential), `Authorization: Bearer ${jwt({ aud: ['vault'], exp: end })}\r\n`)
    assert.equal(credential.expiresAt, end * 1000)
    volumes.token('vault-1', jwt({ exp: end + 600 }))
    credential.refresh()
    assert.equal(credential.expiresAt, (end + 600) * 1000)
  })

  it('has no token of the service account once the last one expired', () => {
    const auth = { kind: 'serviceAccountToken', token: { kind: 'token', name: 'old-1', audience: 'old' } } as const
    volumes.token('old-1', jwt({ exp: Math.floor(Date.now() / 1000) - 1 }))
    const credential = new Credential(auth, volumes.dirs)
    credential.refresh()
    assert.equal(credential.line, null)
    assert.match(credential.failure ?? '', /token for audience 'old' has expired and the kubelet wrote no new one/)
  })

  it('sends a bearer token of a Secret whatever it says of its end, which is told all the same', () => {
    const end = Math.floor(Date.now() / 1000) - 1
    volumes.secret('jwt', { token: jwt({ exp: end }) })
    const credential = new Credential({ kind: 'bearer', token: secret('jwt', 'token') }, volumes.dirs)
    credential.refresh()
    assert.notEqual(credential.line, null)
    assert.equal(credential.expiresAt, end * 1000)
    assert.equal(credential.failure, null)
  })

  it('looks at its files at once when the upstream refuses it, and not at every refusal', () => {
    volumes.secret('refused', { token: 'one' })
    const credential = new Credential({ kind: 'bearer', token: secret('refused', 'token') }, volumes.dirs)
    credential.refresh()
    const first = credential.line as Buffer
    volumes.secret('refused', { token: 'two' })
    assert.equal(credential.refused(first), false, 'nothing is under way')
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    volumes.secret('refused', { token: 'three' })
    credential.refused(credential.line as Buffer)
    assert.equal(line(credential), 'Authorization: Bearer two\r\n', 'looked at a moment ago')
  })

  const kinds = {
    bearer: { kind: 'bearer', token: secret('broken', 'value') },
    'basic, the user name': { kind: 'basic', username: secret('broken', 'value'), password: secret('broken', 'good') },
    'basic, the password': { kind: 'basic', username: secret('broken', 'good'), password: secret('broken', 'value') },
    header: { kind: 'header', name: 'X-Key', value: secret('broken', 'value') },
  } as const
  for (const [kind, auth] of Object.entries(kinds)) {
    it(`refuses a line break inside a value and cuts one off at its end: ${kind}`, () => {
      volumes.secret('broken', { value: 'first\nX-Evil: 1', good: 'good' })
      const credential = new Credential(auth, volumes.dirs)
      const [invalid] = credential.refresh().filter(({ state }) => state !== 'Found')
      assert.equal(invalid?.state, 'Invalid')
      assert.equal(credential.line, null)
      const why = `auth.${auth.kind}: Secret 'broken', key 'value' has a line break inside, put one line there`
      assert.equal(credential.failure, why)
      volumes.secret('broken', { value: 'value\r\n', good: 'good\n' })
      credential.refresh()
      assert.match(String(line(credential)), /^[^\r\n]+\r\n$/)
      const plain = new Credential(auth, volumes.dirs)
      volumes.secret('broken', { value: 'value', good: 'good' })
      plain.refresh()
      assert.equal(line(plain), line(credential))
    })
  }
})

/** A JWT that nobody signed. */
function jwt(claims: object): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  return `${encode({ alg: 'none' })}.${encode(claims)}.signature`
}
