import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { rootCertificates } from 'node:tls'
import type { DataRef, TlsConfig } from '../../../../common/proxy-config.ts'
import { type RefContent, TlsContexts, type TlsReload } from '../../../../proxy/tls/contexts.ts'
import { Pki } from '../../../helpers/pki.ts'

const pki = new Pki()
after(() => pki.remove())
const authority = pki.authority()
const other = pki.authority('Other CA')
const client = authority.issue({ commonName: 'shop', names: [] })
const renewed = authority.issue({ commonName: 'shop', names: [] })
const expired = authority.issue({
  names: ['old.example'],
  notBefore: new Date('2020-01-01'),
  notAfter: new Date('2021-02-03'),
})

/** Line on which the second certificate of a bundle begins. */
const SECOND = authority.cert.split('\n').length

const CA: DataRef = { kind: 'configMap', name: 'ca', key: 'ca.pem' }
const CERT: DataRef = { kind: 'secret', name: 'pair', key: 'tls.crt' }
const KEY: DataRef = { kind: 'secret', name: 'pair', key: 'tls.key' }

function config(parts: Partial<TlsConfig> = {}): TlsConfig {
  return { serverName: null, ca: CA, clientCertificate: null, minVersion: 'TLSv1.2', ...parts }
}
const mutual = config({ clientCertificate: { certificate: CERT, privateKey: KEY } })

/** Files that a test may change, by key. */
function files(content: Record<string, string | Buffer>, wallNow?: () => number) {
  const told: TlsReload[] = []
  const contexts = new TlsContexts({
    read: (ref): RefContent => {
      const bytes = 'key' in ref ? content[ref.key] : undefined
      if (bytes === undefined) return { state: 'Missing', message: `no key ${'key' in ref ? ref.key : ''}` }
      return { state: 'Found', bytes: Buffer.from(bytes) }
    },
    name: (ref) => ('key' in ref ? `${ref.kind} '${ref.name}', key '${ref.key}'` : ref.kind),
    systemRoots: '/nonexistent',
    wallNow,
    onReload: (reload) => told.push(reload),
  })
  return { content, contexts, told }
}

describe('upstream TLS contexts', () => {
  it('builds one context for equal files, and another one for a different minimum version', () => {
    const { contexts } = files({ 'ca.pem': authority.cert })
    const first = contexts.open(config())
    const second = contexts.open(config({ serverName: 'a.example' }))
    assert.notEqual(first.context, null)
    assert.equal(first.context, second.context)
    assert.equal(second.serverName, 'a.example')
    assert.notEqual(contexts.open(config({ minVersion: 'TLSv1.3' })).context, first.context)
  })

  it('takes new files into use at a reload and tells of it once', () => {
    const { content, contexts, told } = files({ 'ca.pem': authority.cert })
    const tls = contexts.open(config())
    const before = tls.context
    contexts.reload()
    assert.deepEqual(told, [])
    content['ca.pem'] = other.cert
    contexts.reload()
    assert.notEqual(tls.context, before)
    assert.deepEqual(told, [{ tls, isReplaced: true, failure: null }])
  })

  it('keeps the last good files, says why, and recovers', () => {
    const { content, contexts, told } = files({
      'ca.pem': authority.cert,
      'tls.crt': client.cert,
      'tls.key': client.key,
    })
    const tls = contexts.open(mutual)
    const good = tls.context
    content['tls.crt'] = renewed.cert
    contexts.reload()
    assert.equal(tls.context, good)
    assert.equal(
      tls.failure,
      "tls.clientCertificate: secret 'pair', key 'tls.key' does not match the certificate of CN=shop, store the two of one pair",
    )
    assert.equal(contexts.reloadFailures, 1)
    assert.deepEqual(
      tls.refs.map(({ ref, state }) => ['key' in ref && ref.key, state]),
      [
        ['ca.pem', 'Found'],
        ['tls.crt', 'Found'],
        ['tls.key', 'Invalid'],
      ],
    )
    content['tls.key'] = renewed.key
    contexts.reload()
    assert.notEqual(tls.context, good)
    assert.equal(tls.failure, null)
    assert.deepEqual(
      told.map(({ isReplaced, failure }) => [isReplaced, failure !== null]),
      [
        [false, true],
        [true, false],
      ],
    )
  })

  it('reads a pair again when the directory was exchanged between its two files', () => {
    let reads = 0
    const contexts = new TlsContexts({
      read: (ref) => {
        const key = 'key' in ref ? ref.key : ''
        if (key === 'tls.crt') return { state: 'Found', bytes: Buffer.from(reads++ === 0 ? client.cert : renewed.cert) }
        return { state: 'Found', bytes: Buffer.from(key === 'tls.key' ? renewed.key : authority.cert) }
      },
      name: () => 'a file',
    })
    const tls = contexts.open(mutual)
    assert.equal(tls.failure, null)
    assert.equal(reads, 2)
  })

  it('has no context and says why while there never was a good set of files', () => {
    const { contexts } = files({})
    const tls = contexts.open(config())
    assert.equal(tls.context, null)
    assert.equal(tls.failure, 'tls.ca: no key ca.pem')
    assert.deepEqual(tls.refs, [{ ref: CA, state: 'Missing', message: 'tls.ca: no key ca.pem' }])
  })

  const broken: [title: string, pem: string | Buffer, message: string][] = [
    [
      'a block that is not a certificate',
      `${authority.cert}${authority.cert.replace(/MII[A-Za-z0-9+/]{20}/, '')}${other.cert}`,
      `certificate 2 of 3 (line ${SECOND}) does not parse, replace it or remove it`,
    ],
    [
      'a block without its end',
      `${authority.cert}${other.cert.split('\n').slice(0, 4).join('\n')}\n`,
      `certificate 2 of 2 (line ${SECOND}) has no END line, copy it whole`,
    ],
    [
      'a single damaged block',
      authority.cert.replace(/MII/, 'M!!'),
      'its certificate (line 1) does not parse, replace it or remove it',
    ],
    ['a key in place of a certificate', client.key, 'has a private key and no certificate, put the certificate there'],
    [
      'a certificate in DER form',
      Buffer.from(authority.cert.replace(/-----.*-----|\n/g, ''), 'base64'),
      'is a certificate in DER form, convert it to PEM',
    ],
    ['an empty file', '', 'has no certificate, put one there in PEM form'],
  ]
  for (const [title, pem, problem] of broken) {
    it(`names ${title} in a CA bundle`, () => {
      const { contexts } = files({ 'ca.pem': pem })
      assert.equal(contexts.open(config()).failure, `tls.ca: configMap 'ca', key 'ca.pem' ${problem}`)
    })
  }

  it('takes a bundle with comments, CRLF and an expired CA among good ones', () => {
    const { contexts } = files({ 'ca.pem': `# ours\r\n${(expired.cert + authority.cert).replaceAll('\n', '\r\n')}` })
    const tls = contexts.open(config())
    assert.equal(tls.failure, null)
    assert.ok(tls.expiry.ca !== null && tls.expiry.ca > Date.now())
  })

  it('refuses a bundle in which nothing is valid, with both dates', () => {
    const { contexts } = files({ 'ca.pem': expired.cert })
    assert.equal(
      contexts.open(config()).failure,
      "tls.ca: configMap 'ca', key 'ca.pem': CN=old.example has expired (valid from 2020-01-01T00:00:00Z to 2021-02-03T00:00:00Z), replace it",
    )
  })

  it('refuses an expired client certificate with both dates and keeps the last good one', () => {
    const { content, contexts } = files({ 'ca.pem': authority.cert, 'tls.crt': client.cert, 'tls.key': client.key })
    const tls = contexts.open(mutual)
    const good = tls.context
    content['tls.crt'] = expired.cert
    content['tls.key'] = expired.key
    contexts.reload()
    assert.equal(tls.context, good)
    assert.equal(
      tls.failure,
      "tls.clientCertificate: secret 'pair', key 'tls.crt': CN=old.example has expired (valid from 2020-01-01T00:00:00Z to 2021-02-03T00:00:00Z), renew it",
    )
  })

  it('takes a certificate that was not yet valid into use when its time comes, without another change', async () => {
    // Their clock begins shortly before that date, however long the machine takes to sign; they look again a second after it.
    const from = new Date(Math.ceil(Date.now() / 1000) * 1000 + 3_600_000)
    let openedAt = 0
    const early = authority.issue({ names: ['early.example'], notBefore: from })
    const told = Promise.withResolvers<TlsReload>()
    const contexts = new TlsContexts({
      read: (ref) => {
        const pem: Record<string, string> = { 'ca.pem': authority.cert, 'tls.crt': early.cert, 'tls.key': early.key }
        return { state: 'Found', bytes: Buffer.from(pem['key' in ref ? ref.key : ''] ?? '') }
      },
      name: () => 'the file',
      onReload: told.resolve,
      wallNow: () => from.getTime() + Math.min(performance.now() - openedAt - 1000, 5000),
    })
    openedAt = performance.now()
    const tls = contexts.open(mutual)
    assert.match(
      tls.failure ?? '',
      /^tls\.clientCertificate: the file: CN=early\.example is not yet valid \(valid from .* to .*\), renew it$/,
    )
    assert.equal(tls.context, null)
    const keepAlive = setTimeout(() => {}, 10_000)
    await told.promise
    clearTimeout(keepAlive)
    assert.equal(tls.failure, null)
    assert.notEqual(tls.context, null)
  })

  it('says that a key is encrypted or missing', () => {
    const keys: [string, string][] = [
      [
        '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n',
        'has an encrypted private key, store it without a passphrase',
      ],
      [client.cert, 'has no private key, put one there in PEM form'],
      [
        '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
        'has a private key that does not parse, replace it',
      ],
    ]
    for (const [key, problem] of keys) {
      const { contexts } = files({ 'ca.pem': authority.cert, 'tls.crt': client.cert, 'tls.key': key })
      assert.equal(contexts.open(mutual).failure, `tls.clientCertificate: secret 'pair', key 'tls.key' ${problem}`)
    }
  })

  it('tells when the certificates expire', () => {
    const notAfter = new Date(Math.floor(Date.now() / 1000) * 1000 + 7 * 86_400_000)
    const leaf = authority.issue({ notAfter })
    const { contexts } = files({ 'ca.pem': authority.cert, 'tls.crt': leaf.cert, 'tls.key': leaf.key })
    const { expiry } = contexts.open(mutual)
    assert.equal(expiry.clientCertificate, notAfter.getTime())
    assert.ok(expiry.ca !== null && expiry.ca > Date.now() + 3649 * 86_400_000)
  })

  it('forgets sessions when the files change, and the oldest when there are too many', () => {
    const { content, contexts } = files({ 'ca.pem': authority.cert })
    const tls = contexts.open(config())
    for (let i = 0; i < 128; i++) tls.keepSession(`k${i}`, Buffer.from([i]), tls.context)
    assert.deepEqual(tls.session('k0'), Buffer.from([0]))
    tls.keepSession('one more', Buffer.from([1]), tls.context)
    assert.equal(tls.session('k1'), undefined)
    assert.deepEqual(tls.session('k0'), Buffer.from([0]))
    content['ca.pem'] = other.cert
    contexts.reload()
    assert.equal(tls.session('k0'), undefined)
  })

  it('trusts the roots of Node where the machine has no others, with one context', () => {
    assert.ok(rootCertificates.length > 100)
    const { contexts } = files({})
    assert.equal(
      contexts.open(config({ ca: null })).context,
      contexts.open(config({ ca: null, serverName: 'x' })).context,
    )
  })

  it('forgets a context when its last user closes', () => {
    const { contexts } = files({ 'ca.pem': authority.cert })
    const tls = contexts.open(config())
    const first = tls.context
    contexts.close(tls)
    assert.notEqual(contexts.open(config()).context, first)
  })
})
