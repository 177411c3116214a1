import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { DialGuard, NO_GUARD } from '../../../../proxy/policy/dial-guard.ts'

describe('the guard of dials', () => {
  it('refuses the own port on loopback under every address that ends there, and nothing else', () => {
    const guard = new DialGuard({ ownPort: 8081, allow: null })
    for (const ip of ['127.0.0.1', '::1', '0.0.0.0', '::', '::ffff:127.0.0.1']) {
      assert.equal(guard.refusal('x.example.com', ip, 8081)?.proxyError, 'proxy_loop_detected', ip)
      assert.equal(guard.refusal('x.example.com', ip, 8082), null, ip)
    }
    assert.equal(guard.refusal('10.0.0.1', '10.0.0.1', 8081), null)
    assert.equal(NO_GUARD.refusal('localhost', '127.0.0.1', 8081), null)
  })

  it('refuses the own port also when it is allowed', () => {
    const guard = new DialGuard({ ownPort: 8081, allow: ['127.0.0.1', 'localhost'] })
    assert.match(guard.refusal('localhost', '127.0.0.1', 8081)?.detail ?? '', /would call itself/)
  })

  it('lets through the names and addresses that are allowed, and names what is not', () => {
    const guard = new DialGuard({ ownPort: 1, allow: ['api.example.com:443', '10.0.0.0/8'] })
    assert.equal(guard.refusal('api.example.com', '192.0.2.1', 443), null)
    assert.equal(guard.refusal('other.example.com', '10.1.2.3', 80), null)
    assert.deepEqual(guard.refusal('other.example.com', '192.0.2.1', 443), {
      detail:
        "endpoint 'other.example.com' (192.0.2.1:443) is not in egress.allow: add it there, or correct what names it",
      proxyError: 'destination_ip_prohibited',
    })
    assert.match(guard.refusal('2001:db8::1', '2001:db8::1', 443)?.detail ?? '', /^endpoint \[2001:db8::1\]:443 is not/)
  })

  it('takes no name for an address of the link, whose keeper is the cloud', () => {
    const guard = new DialGuard({ ownPort: 1, allow: ['api.example.com'] })
    for (const ip of ['169.254.169.254', 'fe80::1', 'fd00:ec2::254', '::ffff:169.254.169.254']) {
      assert.match(guard.refusal('api.example.com', ip, 80)?.detail ?? 'allowed', /is an address of the link/, ip)
    }
    const named = new DialGuard({ ownPort: 1, allow: ['169.254.169.254'] })
    assert.equal(named.refusal('metadata', '169.254.169.254', 80), null)
  })
})
