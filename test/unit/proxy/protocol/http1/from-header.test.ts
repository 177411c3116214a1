import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readNamedHost } from '../../../../../proxy/protocol/http1/from-header.ts'

describe('a host that a request names', () => {
  const read: readonly [text: string, host: string, port: number][] = [
    ['api.example.com', 'api.example.com', 443],
    ['API.Example.com:8443', 'api.example.com', 8443],
    ['api.example.com.', 'api.example.com', 443],
    ['my_service', 'my_service', 443],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example', 443],
    ['10.0.0.1:80', '10.0.0.1', 80],
    ['[2001:DB8:0::1]:80', '2001:db8::1', 80],
    ['[::1]', '::1', 443],
  ]
  for (const [text, host, port] of read) {
    it(`is read from ${text}`, () => assert.deepEqual(readNamedHost(text, 443), { host, port }))
  }

  it('is nothing else than a host and a port', () => {
    for (const text of [
      ...['https://a.example', 'a.example/x', 'a.example?x', 'a.example#x', 'me@a.example', 'a.example:80@b.example'],
      ...[
        'a, b',
        'a b',
        'a\tb',
        'a%2eb',
        'a\\b',
        'b\xfccher.example',
        '..',
        '.',
        '.a',
        'a..b',
        'a.example..',
        '-a',
        'a-.b',
      ],
      ...[
        'a:',
        'a:0',
        'a:080',
        'a:65536',
        'a:-1',
        'a:+1',
        'a:1e3',
        'a:80:80',
        ':80',
        '[::1',
        '::1',
        '[::1]x',
        '[1.2.3.4]',
      ],
      ...[
        '[::ffff:10.0.0.1]',
        '[::ffff:a00:1]',
        '[fe80::1%eth0]',
        '127.1',
        '2130706433',
        '0x7f000001',
        '0177.0.0.1',
        '1.2.3.256',
      ],
      ...['*', '*.example.com', `${'a'.repeat(64)}.example`, `${'a.'.repeat(130)}b`],
    ]) {
      assert.equal(readNamedHost(text, 80), null, JSON.stringify(text))
    }
  })
})
