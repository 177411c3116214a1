import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import * as der from '../../../../operator/webhook/der.ts'
import { createAuthority, createLeaf, type KeyPair } from '../../../../operator/webhook/x509.ts'

const DAY = 86_400_000
const validity = (from: number, days: number) => ({
  notBefore: new Date(Date.now() + from),
  notAfter: new Date(Date.now() + days * DAY),
})
const NAME = 'ambassador-operator.ambassador-system.svc'

const folder = mkdtempSync(join(tmpdir(), 'ambassador-x509-'))
after(() => rmSync(folder, { recursive: true }))
const file = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}
const openssl = (...args: string[]): string => execFileSync('openssl', args, { encoding: 'utf8', stdio: 'pipe' })

/** What openssl says of a leaf in the strictest way that it knows. */
const verify = (authority: KeyPair, leaf: KeyPair, ...args: string[]): string =>
  openssl(
    ...['verify', '-x509_strict', '-check_ss_sig', '-purpose', 'sslserver', '-auth_level', '2', ...args],
    ...['-CAfile', file('ca.pem', authority.certificate), file('leaf.pem', leaf.certificate)],
  )

describe('DER', () => {
  const hex = (bytes: Buffer) => bytes.toString('hex')

  it('writes lengths in the shortest form', () => {
    for (const [length, head] of [
      [0x7f, '047f'],
      [0x80, '048180'],
      [0xff, '0481ff'],
      [0x100, '04820100'],
      [0x10000, '0483010000'],
    ] as const) {
      assert.equal(hex(der.octetString(Buffer.alloc(length))).slice(0, head.length), head)
    }
  })

  it('writes whole numbers without leading zeros and never negative', () => {
    for (const [bytes, expected] of [
      [[0], '020100'],
      [[], '020100'],
      [[0, 0, 1], '020101'],
      [[0x7f], '02017f'],
      [[0x80], '02020080'],
      [[0, 0x80], '02020080'],
    ] as const) {
      assert.equal(hex(der.integer(Buffer.from(bytes))), expected)
    }
  })

  it('writes object identifiers', () => {
    assert.equal(hex(der.objectIdentifier('1.2.840.10045.4.3.2')), '06082a8648ce3d040302')
    assert.equal(hex(der.objectIdentifier('2.5.29.17')), '0603551d11')
  })

  it('writes times of this half of the century and of the next in their forms', () => {
    assert.equal(der.time(new Date('2049-12-31T23:59:59.999Z')).toString('latin1', 2), '491231235959Z')
    assert.equal(der.time(new Date('2050-01-01T00:00:00Z')).toString('latin1', 2), '20500101000000Z')
    assert.deepEqual([der.time(new Date('2049-01-01'))[0], der.time(new Date('2050-01-01'))[0]], [0x17, 0x18])
  })
})

describe('a serving certificate of our own', () => {
  const authority = createAuthority(validity(-3_600_000, 365))
  const leaf = createLeaf(authority, [NAME, '127.0.0.1', '::1'], validity(-3_600_000, 7))

  it('is verified by openssl for its name and addresses, strictly', () => {
    assert.match(verify(authority, leaf, '-verify_hostname', NAME), /leaf\.pem: OK/)
    assert.match(verify(authority, leaf, '-verify_ip', '127.0.0.1'), /OK/)
    assert.match(verify(authority, leaf, '-verify_ip', '::1'), /OK/)
  })

  it('is refused by openssl for another name, and below another CA', () => {
    assert.throws(() => verify(authority, leaf, '-verify_hostname', 'other.svc'), /hostname mismatch/)
    assert.throws(() => verify(createAuthority(validity(0, 1)), leaf), /unable to get local issuer certificate/)
  })

  it('has a key that fits', () => {
    const certificate = new X509Certificate(leaf.certificate)
    const ca = new X509Certificate(authority.certificate)
    assert.ok(certificate.checkIssued(ca) && certificate.verify(ca.publicKey))
    const key = openssl('pkey', '-in', file('leaf.key', leaf.privateKey), '-pubout')
    assert.equal(key, openssl('x509', '-in', file('leaf.pem', leaf.certificate), '-noout', '-pubkey'))
  })

  it('is for servers alone, and its CA for signing leaves alone', () => {
    const text = openssl('x509', '-in', file('leaf.pem', leaf.certificate), '-noout', '-text')
    assert.match(text, /Public Key Algorithm: id-ecPublicKey[\s\S]*NIST CURVE: P-256/)
    assert.match(text, /Basic Constraints: critical\s+CA:FALSE/)
    assert.match(text, /Key Usage: critical\s+Digital Signature\n/)
    assert.match(text, /Extended Key Usage: \n\s+TLS Web Server Authentication\n/)
    const ca = openssl('x509', '-in', file('ca.pem', authority.certificate), '-noout', '-text')
    assert.match(ca, /Basic Constraints: critical\s+CA:TRUE, pathlen:0/)
    assert.match(ca, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/)
  })

  it('names addresses of both families', () => {
    const names = ['10.96.0.1', '2001:db8::7:0:1', '::ffff:1.2.3.4', '::']
    const certificate = new X509Certificate(createLeaf(authority, names, validity(0, 1)).certificate)
    for (const name of names) assert.ok(certificate.checkIP(name) !== undefined, name)
    assert.equal(certificate.checkIP('2001:db8::7:0:2'), undefined)
  })

  it('never outlives its CA', () => {
    const short = createAuthority(validity(0, 1))
    const certificate = new X509Certificate(createLeaf(short, [NAME], validity(0, 7)).certificate)
    assert.equal(certificate.validTo, new X509Certificate(short.certificate).validTo)
  })

  it('is accepted by openssl hundreds of times: no number depends on luck', () => {
    // Serial numbers, signatures and keys are random; a wrong padding of one of them would show once in 256.
    for (let i = 0; i < 600; i++) {
      const each = createLeaf(authority, [NAME], validity(0, 1))
      assert.ok(new X509Certificate(each.certificate).verify(new X509Certificate(authority.certificate).publicKey))
    }
  })
})
