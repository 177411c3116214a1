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
    const credential = new Credential({ kind: 'bearer', token: secret('token', 'token') })
    assert.equal(credential.line, null)
    assert.deepEqual(credential.refresh(volumes.dirs), [{ ref: secret('token', 'token'), state: 'Found', message: '' }])
    assert.equal(credential.name, 'authorization')
    assert.equal(line(credential), 'Authorization: Bearer abc\r\n')
    assert.equal(credential.failure, null)
  })

  it('makes the header line of a user name and a password', () => {
    volumes.secret('basic', { username: 'Aladdin', password: 'open sesame' })
    const credential = new Credential({
      kind: 'basic',
      username: secret('basic', 'username'),
      password: secret('basic', 'password'),
    })
    credential.refresh(volumes.dirs)
    // The example of RFC 7617 section 2.
    assert.equal(line(credential), 'Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n')
  })

  it('refuses a user name with a colon, which would move a part of it into the password', () => {
    volumes.secret('colon', { username: 'a:b', password: 'c' })
    const credential = new Credential({
      kind: 'basic',
      username: secret('colon', 'username'),
      password: secret('colon', 'password'),
    })
    const [report] = credential.refresh(volumes.dirs)
    assert.equal(report?.state, 'Invalid')
    assert.equal(credential.failure, "auth.basic: Secret 'colon', key 'username' has a colon, a user name has none")
  })

  it('keeps the case of a header name and matches it in lower case', () => {
    volumes.secret('api', { key: 'k-1' })
    const credential = new Credential({ kind: 'header', name: 'X-Api-Key', value: secret('api', 'key') })
    credential.refresh(volumes.dirs)
    assert.equal(credential.name, 'x-api-key')
    assert.equal(line(credential), 'X-Api-Key: k-1\r\n')
  })

  it('takes a rotated value, and keeps the last good one when the new one is unusable or gone', () => {
    volumes.secret('rotated', { token: 'one' })
    const credential = new Credential({ kind: 'bearer', token: secret('rotated', 'token') })
    credential.refresh(volumes.dirs)
    volumes.secret('rotated', { token: 'two' })
    credential.refresh(volumes.dirs)
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    volumes.secret('rotated', { token: 'thr\nee' })
    assert.equal(credential.refresh(volumes.dirs)[0]?.state, 'Invalid')
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    volumes.secret('rotated', {})
    assert.equal(credential.refresh(volumes.dirs)[0]?.state, 'Missing')
    assert.equal(line(credential), 'Authorization: Bearer two\r\n')
    assert.equal(credential.failure, null)
  })

  it('says what to do while there was never a good value', () => {
    const credential = new Credential({ kind: 'bearer', token: secret('unmounted', 'token') })
    credential.refresh(volumes.dirs)
    assert.equal(credential.line, null)
    const why = "auth.bearer: Secret 'unmounted' is not mounted in this pod, restart the pod to mount it"
    assert.equal(credential.failure, why)
  })
})
