import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { groupsWith, KeyShare } from '../../../../proxy/tls/key-share.ts'

const agreed = (share: KeyShare, ...groups: readonly (string | null)[]): boolean[] =>
  groups.map((group) => share.agreed(group))

describe('the key share of a ClientHello', () => {
  it('is that of the group which three handshakes in turn agreed on', () => {
    const share = new KeyShare()
    assert.deepEqual(agreed(share, 'X25519', 'prime256v1', 'X25519', 'X25519', 'X25519', 'X25519'), [
      false,
      false,
      false,
      false,
      true,
      false,
    ])
    assert.equal(share.predicted, 'X25519')
  })

  it('stays that of OpenSSL for a server with the hybrid, and where no group is told', () => {
    const share = new KeyShare()
    agreed(share, ...Array.from({ length: 5 }, () => 'X25519MLKEM768'), ...Array.from({ length: 5 }, () => null))
    assert.equal(share.predicted, null)
  })

  it('is that of OpenSSL again, and for good, once a server chose another group than the predicted one', () => {
    const share = new KeyShare()
    agreed(share, 'X25519', 'X25519', 'X25519')
    assert.equal(share.agreed('X25519MLKEM768'), true)
    assert.equal(share.predicted, null)
    assert.deepEqual(agreed(share, 'X25519', 'X25519', 'X25519', 'X25519'), [false, false, false, false])
  })

  it('takes what a whole handshake and a resumed one call a group for the same', () => {
    const share = new KeyShare()
    assert.deepEqual(agreed(share, 'X25519', 'x25519', 'x25519', 'X25519', 'x25519'), [
      false,
      false,
      true,
      false,
      false,
    ])
    assert.match(groupsWith(share.predicted ?? ''), /\?\*X25519/)
    const other = new KeyShare()
    assert.deepEqual(agreed(other, 'prime256v1', 'secp256r1', 'secp256r1', 'prime256v1'), [false, false, true, false])
  })

  it('leaves the groups that are offered, and their order, as they are', () => {
    const names = (list: string) => list.replaceAll(/[?*]/g, '')
    assert.equal(names(groupsWith('prime256v1')), names(groupsWith('X25519')))
    assert.match(groupsWith('prime256v1'), /^\?X25519MLKEM768 \/ \?X25519:\?\*secp256r1 \/ /)
  })
})
