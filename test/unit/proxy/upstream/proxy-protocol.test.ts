import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addressBytes, proxyHeader } from '../../../../proxy/upstream/proxy-protocol.ts'

const SIGNATURE = '0d0a0d0a000d0a515549540a'

describe('the header of the PROXY protocol', () => {
  const v4 = { from: { address: '10.1.2.3', port: 40_000 }, to: { address: '192.0.2.7', port: 5432 } }
  const v6 = { from: { address: '2001:db8::1', port: 1 }, to: { address: '2001:db8::2:3', port: 65_535 } }

  it('of version 1 is a line of text', () => {
    assert.equal(proxyHeader('V1', v4).toString(), 'PROXY TCP4 10.1.2.3 192.0.2.7 40000 5432\r\n')
    assert.equal(proxyHeader('V1', v6).toString(), 'PROXY TCP6 2001:db8::1 2001:db8::2:3 1 65535\r\n')
    assert.equal(proxyHeader('V1', null).toString(), 'PROXY UNKNOWN\r\n')
  })

  it('of version 2 has the addresses as bytes', () => {
    assert.equal(proxyHeader('V2', v4).toString('hex'), `${SIGNATURE}2111000c0a010203c00002079c401538`)
    const addresses = '20010db800000000000000000000000120010db8000000000000000000020003'
    assert.equal(proxyHeader('V2', v6).toString('hex'), `${SIGNATURE}21210024${addresses}0001ffff`)
    assert.equal(proxyHeader('V2', null).toString('hex'), `${SIGNATURE}20000000`)
  })

  it('knows every way to write an address', () => {
    assert.equal(addressBytes('::').toString('hex'), '0'.repeat(32))
    assert.equal(addressBytes('::1').toString('hex'), `${'0'.repeat(31)}1`)
    assert.equal(addressBytes('::ffff:192.0.2.7').toString('hex'), `${'0'.repeat(20)}ffffc0000207`)
    assert.equal(addressBytes('fe80::1%eth0').toString('hex'), 'fe800000000000000000000000000001')
  })

  it('tells no addresses where there are none of one family', () => {
    assert.equal(proxyHeader('V1', { from: v4.from, to: v6.to }).toString(), 'PROXY UNKNOWN\r\n')
    assert.equal(
      proxyHeader('V1', { from: { address: '', port: 0 }, to: { address: '', port: 0 } }).toString(),
      'PROXY UNKNOWN\r\n',
    )
  })
})
