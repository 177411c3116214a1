/** Certificates of our own: a CA that signs short-lived serving certificates. ECDSA on P-256 with SHA-256, profile of RFC 5280. */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import * as der from './der.ts'

/** A certificate and its key, as PEM. */
export interface KeyPair {
  readonly certificate: string
  readonly privateKey: string
}

export interface Validity {
  readonly notBefore: Date
  readonly notAfter: Date
}

const OID = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
} as const

const ORGANIZATION = 'ambassador.dev'
/** X.520: a common name has at most 64 characters. The names that count are in the subjectAltName. */
const MAX_COMMON_NAME = 64

/** Bits of keyUsage, RFC 5280 section 4.2.1.3. */
const USAGE_DIGITAL_SIGNATURE = der.bitString(Buffer.from([0x80]), 7)
const USAGE_CERT_SIGN_CRL_SIGN = der.bitString(Buffer.from([0x06]), 1)

/** Makes a CA that can sign leaves and no other CA. */
export function createAuthority(validity: Validity): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyId = keyIdentifier(publicKey)
  // A name of its own for each, so that a verifier never takes one CA for another of the same name.
  const name = distinguishedName(`ambassador webhook CA ${keyId.toString('hex').slice(0, 12)}`)
  const extensions = [
    extension(OID.basicConstraints, true, der.sequence(der.boolean(true), der.integer(Buffer.from([0])))),
    extension(OID.keyUsage, true, USAGE_CERT_SIGN_CRL_SIGN),
    extension(OID.subjectKeyIdentifier, false, der.octetString(keyId)),
  ]
  return pair(
    certificate({ issuer: name, subject: name, publicKey, signer: privateKey, validity, extensions }),
    privateKey,
  )
}

/** Makes a serving certificate for DNS names and IP addresses, signed by a CA; it never outlives the CA. */
export function createLeaf(authority: KeyPair, names: readonly string[], validity: Validity): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ca = new X509Certificate(authority.certificate)
  const caEnd = new Date(ca.validTo)
  const extensions = [
    extension(OID.basicConstraints, true, der.sequence()),
    extension(OID.keyUsage, true, USAGE_DIGITAL_SIGNATURE),
    extension(OID.extendedKeyUsage, false, der.sequence(der.objectIdentifier(OID.serverAuth))),
    extension(OID.subjectKeyIdentifier, false, der.octetString(keyIdentifier(publicKey))),
    extension(OID.authorityKeyIdentifier, false, der.sequence(der.implicit(0, keyIdentifier(ca.publicKey)))),
    extension(OID.subjectAltName, false, der.sequence(...names.map(generalName))),
  ]
  const bytes = certificate({
    issuer: distinguishedName(commonNameOf(ca)),
    subject: distinguishedName((names[0] ?? 'ambassador').slice(0, MAX_COMMON_NAME)),
    publicKey,
    signer: createPrivateKey(authority.privateKey),
    validity: { ...validity, notAfter: validity.notAfter < caEnd ? validity.notAfter : caEnd },
    extensions,
  })
  return pair(bytes, privateKey)
}

interface CertificateParts {
  readonly issuer: Buffer
  readonly subject: Buffer
  readonly publicKey: KeyObject
  readonly signer: KeyObject
  readonly validity: Validity
  readonly extensions: readonly Buffer[]
}

/** RFC 5280 section 4.1: version 3, a serial number of 64 random bits and more, everything signed. */
function certificate({ issuer, subject, publicKey, signer, validity, extensions }: CertificateParts): Buffer {
  const algorithm = der.sequence(der.objectIdentifier(OID.ecdsaWithSha256))
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x7f) | 0x01 // positive, and never shorter than it seems
  const content = der.sequence(
    der.explicit(0, der.integer(Buffer.from([2]))),
    der.integer(serial),
    algorithm,
    issuer,
    der.sequence(der.time(validity.notBefore), der.time(validity.notAfter)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der.explicit(3, der.sequence(...extensions)),
  )
  return der.sequence(content, algorithm, der.bitString(sign('sha256', content, signer)))
}

function distinguishedName(commonName: string): Buffer {
  const attribute = (oid: string, value: string) =>
    der.setOf(der.sequence(der.objectIdentifier(oid), der.utf8String(value)))
  return der.sequence(attribute(OID.organization, ORGANIZATION), attribute(OID.commonName, commonName))
}

/** The name by which a CA of ours calls itself, for the issuer field of its leaves. */
function commonNameOf(ca: X509Certificate): string {
  return /^CN=(.*)$/m.exec(ca.subject)?.[1] ?? ''
}

function extension(oid: string, isCritical: boolean, value: Uint8Array): Buffer {
  const critical = isCritical ? [der.boolean(true)] : []
  return der.sequence(der.objectIdentifier(oid), ...critical, der.octetString(value))
}

/** RFC 5280 section 4.2.1.2, method 1: SHA-1 over the bits of the key; an identifier, not a safeguard. */
function keyIdentifier(key: KeyObject): Buffer {
  const jwk = key.export({ format: 'jwk' })
  const point = Buffer.concat([
    Buffer.from([0x04]),
    Buffer.from(String(jwk['x']), 'base64url'),
    Buffer.from(String(jwk['y']), 'base64url'),
  ])
  return createHash('sha1').update(point).digest()
}

/** RFC 5280 section 4.2.1.6: dNSName [2], iPAddress [7]. */
function generalName(name: string): Buffer {
  return isIP(name) === 0 ? der.implicit(2, Buffer.from(name, 'latin1')) : der.implicit(7, addressBytes(name))
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  // The URL parser writes the shortest form of any IPv6 address, an embedded IPv4 one in hex too.
  const text = new URL(`http://[${address}]`).hostname.slice(1, -1)
  const [head = '', tail] = text.split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)))
  const left = groups(head)
  const right = groups(tail ?? '')
  const bytes = Buffer.alloc(16)
  left.forEach((group, i) => {
    bytes.writeUInt16BE(group, i * 2)
  })
  right.forEach((group, i) => {
    bytes.writeUInt16BE(group, 16 - (right.length - i) * 2)
  })
  return bytes
}

function pair(bytes: Buffer, privateKey: KeyObject): KeyPair {
  const lines = bytes.toString('base64').replace(/.{64}(?=.)/g, '$&\n')
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}
