/** Which key share a ClientHello carries: that of the group which the server has chosen before, so that no other is made for nothing. */

/*
 * OpenSSL sends two shares, of the hybrid X25519MLKEM768 and of X25519, because it does not know what the server will take. A server
 * that takes neither of them, or not the hybrid, costs each handshake keys that nobody uses, 1,200 bytes on the wire, and 9 kB
 * for as long as the connection lives, or another round trip. The groups that are offered, and their order, stay the same: a server
 * that prefers another one asks for its share (HelloRetryRequest, RFC 8446 section 4.1.4), so nothing becomes weaker by this.
 */

/** As OpenSSL has it by default, each to be left out where it is not known; the predicted one gets a star. */
const TUPLES: readonly (readonly string[])[] = [
  ['X25519MLKEM768'],
  ['X25519', 'secp256r1'],
  ['X448', 'secp384r1', 'secp521r1'],
  ['ffdhe2048', 'ffdhe3072'],
]

/**
 * Names that a finished handshake tells, in lower case, and those of the list above: OpenSSL says `X25519` of a whole handshake and
 * `x25519` of one that resumes a session. The hybrid is not among them: its share is sent by default.
 */
const PREDICTED: ReadonlyMap<string, string> = new Map([
  ['x25519', 'X25519'],
  ['prime256v1', 'secp256r1'],
  ['secp256r1', 'secp256r1'],
  ['secp384r1', 'secp384r1'],
  ['secp521r1', 'secp521r1'],
])

/** Handshakes in turn that agree on a group before it is predicted. */
const ENOUGH = 3

/** Groups of a context whose ClientHello has a share of `group` alone. */
export function groupsWith(group: string): string {
  const predicted = nameOf(group)
  return TUPLES.map((tuple) => tuple.map((each) => `?${each === predicted ? '*' : ''}${each}`).join(':')).join(' / ')
}

/** The one name of a group that a handshake may call by several. */
function nameOf(group: string): string {
  return PREDICTED.get(group.toLowerCase()) ?? group
}

/** What the servers of one upstream choose. */
export class KeyShare {
  /** The group whose share is sent; null: those of OpenSSL. */
  predicted: string | null = null
  #last: string | null = null
  #inTurn = 0
  /** They are not of one mind, or one of them has the hybrid. */
  #isOff = false

  /** Takes note of what a handshake agreed on. @returns whether another share is to be sent from now on */
  agreed(told: string | null): boolean {
    if (this.#isOff) return false
    const group = told === null ? null : nameOf(told)
    if (group !== this.#last) this.#inTurn = 0
    this.#last = group
    this.#inTurn++
    if (group !== null && group === this.predicted) return false
    if (this.predicted !== null) {
      this.#isOff = true
      this.predicted = null
      return true
    }
    if (group === null || this.#inTurn < ENOUGH || !PREDICTED.has(group.toLowerCase())) return false
    this.predicted = group
    return true
  }
}
