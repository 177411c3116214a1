/** Files as people store them: what is read, with what OpenSSL is given of it, and what is said of the rest. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createSecureContext } from 'node:tls'
import { parseCertificates, parsePrivateKey } from '../../../../proxy/tls/pem.ts'
import { Pki } from '../../../helpers/pki.ts'

const pki = new Pki()
const dir = mkdtempSync(join(tmpdir(), 'ambassador-pem-'))
after(() => {
  pki.remove()
  rmSync(dir, { recursive: true })
})
const first = pki.authority('First')
const second = pki.authority('Second')
const { cert, key } = first.issue()
writeFileSync(join(dir, 'cert'), cert)
writeFileSync(join(dir, 'key'), key)

function openssl(args: string): Buffer {
  execFileSync('openssl', [...args.split(' '), '-out', 'out'], { cwd: dir, stdio: 'pipe' })
  return readFileSync(join(dir, 'out'))
}

const der = (pem: string) => Buffer.from(pem.replace(/-----.*-----|\n/g, ''), 'base64')
const indented = (pem: string) => pem.replace(/^/gm, '    ')
const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le')
const pkcs12 = openssl('pkcs12 -export -in cert -inkey key -passout pass:x')
const pkcs7 = openssl('crl2pkcs7 -nocrl -certfile cert')
const pkcs7Der = openssl('crl2pkcs7 -nocrl -certfile cert -outform DER')
const request = openssl('req -new -key key -subj /CN=a')
const publicKey = openssl('pkey -in key -pubout')
const trusted = openssl('x509 -in cert -trustout -addtrust serverAuth')
const withText = openssl('x509 -in cert -text')

describe('a file of certificates', () => {
  const both = `${first.cert}${second.cert}`
  const readable: Record<string, string | Buffer> = {
    'as it should be': both,
    'behind a byte order mark': `\ufeff${both}`,
    'with the line ends of Windows': both.replaceAll('\n', '\r\n'),
    'with the line ends of old Macs': both.replaceAll('\n', '\r'),
    'with space at the ends of lines': both.replaceAll('\n', ' \t\n'),
    'with empty lines between all lines': both.replaceAll('\n', '\n\n'),
    'indented as in a YAML file': indented(both),
    'of which the second is indented': first.cert + indented(second.cert),
    'put together of two without a line break between them': first.cert.trimEnd() + second.cert,
    'on one line each': both.replaceAll(/\n(?!-)/g, ' '),
    'with text before, between and behind': `# ours\nSubject: CN=First\n${first.cert}\n-- \n${second.cert}\nthe end`,
    'with a key between them': first.cert + key + second.cert,
  }
  for (const [how, content] of Object.entries(readable)) {
    it(`${how} is read, and OpenSSL gets every one of them`, () => {
      const parsed = parseCertificates(Buffer.from(content))
      assert.ok(parsed.ok, JSON.stringify(parsed))
      assert.deepEqual(
        parsed.value.all.map(({ subject }) => subject),
        ['CN=First', 'CN=Second'],
      )
      assert.equal(parsed.value.pem.toString(), both)
    })
  }

  it('of OpenSSL, with trust settings or in words, is read', () => {
    for (const content of [trusted, withText]) {
      const parsed = parseCertificates(content)
      assert.ok(parsed.ok && parsed.value.all.length === 1)
      createSecureContext({ ca: parsed.value.pem })
    }
    const parsed = parseCertificates(trusted)
    assert.match(parsed.ok ? parsed.value.pem.toString() : '', /^-----BEGIN TRUSTED CERTIFICATE-----\n/)
  })

  const others: Record<string, [content: string | Buffer, problem: string]> = {
    'a PKCS#12 file': [pkcs12, 'is a PKCS#12 file, convert it to PEM'],
    'a PKCS#7 bundle': [pkcs7, 'has a PKCS#7 bundle and no certificate, put the certificate there'],
    'a PKCS#7 bundle in DER form': [pkcs7Der, 'is a PKCS#7 bundle in DER form, convert it to PEM'],
    'a Java key store': [Buffer.from('feedfeed00000002', 'hex'), 'is a Java key store, convert it to PEM'],
    'a key in DER form': [der(key), 'is a private key in DER form, convert it to PEM'],
    'something else in DER form': [Buffer.from('3004300202003000', 'hex'), 'is in DER form, convert it to PEM'],
    'a certificate request': [request, 'has a certificate request and no certificate, put the certificate there'],
    'a public key': [publicKey, 'has a public key and no certificate, put the certificate there'],
    'PEM in base64 once more': [
      Buffer.from(cert).toString('base64'),
      'is PEM that was encoded in base64 once more, store it decoded',
    ],
    'text in UTF-16': [utf16(cert), 'is text in UTF-16, store it in UTF-8'],
    'letters for line breaks': [
      cert.replaceAll('\n', '\\n'),
      'its certificate (line 1) has the letters \\n where lines end, put line breaks there',
    ],
    'an error page': ['<html>404</html>', 'has no certificate, put one there in PEM form'],
  }
  for (const [what, [content, problem]] of Object.entries(others)) {
    it(`that is ${what} is told as that`, () => {
      assert.deepEqual(parseCertificates(Buffer.from(content as string)), { ok: false, problem })
    })
  }
})

describe('a file of a private key', () => {
  const pem = { type: 'pkcs8', format: 'pem' } as const
  const legacy = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  const kinds: Record<string, string | Buffer> = {
    ec: key,
    'ec behind a byte order mark': `\ufeff${key}`,
    'ec behind its parameters': openssl('ecparam -name prime256v1 -genkey'),
    'ec, indented': indented(key),
    'ec, with the line ends of old Macs': key.replaceAll('\n', '\r'),
    'ec behind its certificate': cert + key,
    ed25519: generateKeyPairSync('ed25519').privateKey.export(pem),
    'rsa-pss': generateKeyPairSync('rsa-pss', { modulusLength: 2048 }).privateKey.export(pem),
    rsa: legacy.export({ type: 'pkcs1', format: 'pem' }),
  }
  for (const [kind, content] of Object.entries(kinds)) {
    it(`of the kind ${kind} is read, and OpenSSL takes it`, () => {
      const parsed = parsePrivateKey(Buffer.from(content))
      assert.ok(parsed.ok, JSON.stringify(parsed))
      assert.equal(parsed.value.key.asymmetricKeyType, /^[a-z0-9-]+/.exec(kind)?.[0])
      createSecureContext({ key: parsed.value.pem })
    })
  }

  const locked = { cipher: 'aes-128-cbc', passphrase: 'x' }
  const others: Record<string, [content: string | Buffer, problem: string]> = {
    'locked by a passphrase': [
      legacy.export({ ...pem, ...locked }),
      'has an encrypted private key, store it without a passphrase',
    ],
    'locked by a passphrase in the old way': [
      legacy.export({ type: 'pkcs1', format: 'pem', ...locked }),
      'has an encrypted private key, store it without a passphrase',
    ],
    'a PKCS#12 file': [pkcs12, 'is a PKCS#12 file, convert it to PEM'],
    'in DER form': [der(key), 'is a private key in DER form, convert it to PEM'],
    'in base64 once more': [
      Buffer.from(key).toString('base64'),
      'is PEM that was encoded in base64 once more, store it decoded',
    ],
    'in UTF-16': [utf16(key), 'is text in UTF-16, store it in UTF-8'],
    'a public key': [publicKey, 'has a public key and no private key, put the private key there'],
    'a certificate request': [request, 'has a certificate request and no private key, put the private key there'],
    'of OpenSSH': [
      '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n',
      'has a private key in the form of OpenSSH, convert it to PKCS#8 in PEM form',
    ],
    'without its end': [key.slice(0, key.indexOf('-----END')), 'has a private key without its END line, copy it whole'],
    'with letters for line breaks': [
      key.replaceAll('\n', '\\n'),
      'has a private key with the letters \\n where lines end, put line breaks there',
    ],
  }
  for (const [what, [content, problem]] of Object.entries(others)) {
    it(`that is ${what} is told as that`, () => {
      assert.deepEqual(parsePrivateKey(Buffer.from(content as string)), { ok: false, problem })
    })
  }
})
