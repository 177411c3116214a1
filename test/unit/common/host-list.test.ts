import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { HostList, isHostPattern } from '../../../common/host-list.ts'

describe('a list of hosts', () => {
  const cases: readonly [entry: string, host: string, port: number, allows: boolean][] = [
    ['api.example.com:443', 'api.example.com', 443, true],
    ['api.example.com:443', 'api.example.com', 8443, false],
    ['api.example.com', 'api.example.com', 8443, true],
    ['api.example.com', 'API.Example.COM.', 80, true],
    ['API.example.com', 'api.example.com', 80, true],
    ['api.example.com', 'xapi.example.com', 80, false],
    ['api.example.com', 'api.example.com.evil.test', 80, false],
    ['*.example.com', 'a.example.com', 80, true],
    ['*.example.com', 'a.b.example.com', 80, true],
    ['*.example.com', 'example.com', 80, false],
    ['*.example.com', '.example.com', 80, false],
    ['*.example.com', 'aexample.com', 80, false],
    ['*.example.com:443', 'a.example.com', 80, false],
    ['10.0.0.0/8', '10.255.1.2', 80, true],
    ['10.0.0.0/8', '11.0.0.1', 80, false],
    ['10.0.0.0/8:5432', '10.0.0.1', 5432, true],
    ['10.0.0.0/8:5432', '10.0.0.1', 5433, false],
    ['192.0.2.7', '192.0.2.7', 1, true],
    ['192.0.2.7', '192.0.2.70', 1, false],
    ['2001:db8::/32', '2001:db8:1::7', 80, true],
    ['2001:db8::/32', '2001:db9::7', 80, false],
    ['[2001:db8::7]:443', '2001:db8:0::7', 443, true],
    ['[2001:db8::7]:443', '2001:db8::7', 80, false],
    ['10.0.0.0/8', '10.example.com', 80, false],
    ['::/0', '2001:db8::7', 80, true],
    ['::/0', '::1', 80, true],
    ['::/0', '127.0.0.1', 80, false],
    ['::/0', '::ffff:127.0.0.1', 80, false],
    ['::/64', '10.0.0.1', 80, false],
    ['0.0.0.0/0', '::1', 80, false],
    ['10.0.0.0/8', '::ffff:10.0.0.1', 80, true],
    ['10.0.0.0/8', '::ffff:a00:1', 80, true],
    ['10.0.0.0/8', '::ffff:11.0.0.1', 80, false],
  ]
  for (const [entry, host, port, allows] of cases) {
    it(`with ${entry} ${allows ? 'allows' : 'does not allow'} ${host}, port ${port}`, () => {
      assert.equal(new HostList([entry]).allows(host, port), allows)
    })
  }

  it('refuses what could mean more than it says', () => {
    for (const entry of [
      '*',
      '*.',
      'a.*.b',
      '*a.b',
      'a..b',
      '.a',
      'https://a',
      'a/b',
      'a:',
      'a:0',
      'a:080',
      'a@b',
      'ä.de',
    ]) {
      assert.equal(isHostPattern(entry), false, entry)
    }
    for (const entry of [
      '1.2.3',
      '1.2.3.4.5',
      '256.1.1.1',
      '1.2.3.4/33',
      '1.2.3.4/',
      '[1.2.3.4]',
      '[::1',
      '::1/129',
      '::ffff:1.2.3.4',
    ]) {
      assert.equal(isHostPattern(entry), false, entry)
    }
    assert.throws(() => new HostList(['*']), /^Error: '\*' is not a host, use /)
  })
})
