import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { candidateNames, hostsAddresses, parseResolvConf } from '../../../../../proxy/upstream/dns/resolv-conf.ts'

describe('resolv.conf', () => {
  it('is read as a pod has it', () => {
    const text =
      'search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n'
    assert.deepEqual(parseResolvConf(text), {
      nameservers: ['10.96.0.10'],
      search: ['shop.svc.cluster.local', 'svc.cluster.local', 'cluster.local'],
      ndots: 5,
      timeoutMs: null,
      attempts: null,
    })
  })

  it('takes every nameserver, the last search or domain line, comments, and options within their bounds', () => {
    const text = `# made by hand
nameserver 192.0.2.1 # first
nameserver fe80::1%eth0
nameserver not-an-address
search a.example.
domain b.example
; nameserver 192.0.2.9
options timeout:0 attempts:9 ndots:99 rotate
nameserver 2001:db8::53`
    assert.deepEqual(parseResolvConf(text), {
      nameservers: ['192.0.2.1', 'fe80::1%eth0', '2001:db8::53'],
      search: ['b.example'],
      ndots: 15,
      timeoutMs: 1000,
      attempts: 5,
    })
  })

  it('means this machine when it is empty', () => {
    assert.deepEqual(parseResolvConf('').nameservers, ['127.0.0.1'])
  })

  const conf = { search: ['ns.svc', 'svc'], ndots: 2 }
  const orders: [name: string, candidates: string[]][] = [
    ['db', ['db.ns.svc', 'db.svc', 'db']],
    ['db.other', ['db.other.ns.svc', 'db.other.svc', 'db.other']],
    ['api.example.com', ['api.example.com', 'api.example.com.ns.svc', 'api.example.com.svc']],
    ['db.', ['db']],
    [`${'a'.repeat(64)}.example`, []],
    [`${'ü'.repeat(32)}.example.com`, []],
    ['a..b', []],
    [`${'a.'.repeat(125)}ab`, [`${'a.'.repeat(125)}ab`]],
  ]
  for (const [name, candidates] of orders) {
    it(`asks for ${name.slice(0, 20)} as ${candidates.length} full names in the order of ndots`, () => {
      assert.deepEqual(candidateNames(name, conf), candidates)
    })
  }
})

describe('the hosts file', () => {
  const text =
    '127.0.0.1 localhost\n::1 LOCALHOST ip6-localhost\n10.0.0.1\tdb db.example # comment db2\n10.0.0.2 db\n10.0.0.1 db\nbad db\n'

  it('gives every address of a name once', () => {
    assert.deepEqual(hostsAddresses(text, 'db'), ['10.0.0.1', '10.0.0.2'])
    assert.deepEqual(hostsAddresses(text, 'localhost'), ['127.0.0.1', '::1'])
  })

  it('knows nothing of what stands in a comment', () => {
    assert.deepEqual(hostsAddresses(text, 'db2'), [])
  })
})
