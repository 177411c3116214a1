/** SCRAM-SHA-256 (RFC 5802, RFC 7677): the client's side, bound to the channel where it can be, and the server's. */

/** Work that a server may ask for: PostgreSQL's own default is 4,096. */
const MAX_ITERATIONS = 10_000_000
/** A server's first message is a nonce, a salt and a number. */
const MAX_MESSAGE_BYTES = 4096
const NONCE_BYTES = 18

/** Digests of passwords, each costing milliseconds of a core, by password, salt and iterations. */
const salted = new Map<string, Promise<Buffer>>()
const MAX_SALTED = 64

/** One login at a server. Errors name what the server did; no message has the password in it. */
export class Scram {
  readonly mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS'
  readonly #password: string
  readonly #header: string
  readonly #binding: Buffer
  readonly #nonce: string
  #serverSignature: Buffer | null = null

  /**
   * `binding`: the data of tls-server-end-point (RFC 5929 section 4); null: the channel is not bound. `not offered`: it would be, did the server
   * offer it: one that did, and whose offer somebody on the way took out, then refuses the login (RFC 5802 section 6).
   */
  constructor(password: string, binding: Buffer | 'not offered' | null, nonce?: string) {
    const isBound = Buffer.isBuffer(binding)
    this.mechanism = isBound ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256'
    this.#password = password.normalize('NFKC')
    this.#header = isBound ? 'p=tls-server-end-point,,' : binding === null ? 'n,,' : 'y,,'
    this.#binding = Buffer.concat([Buffer.from(this.#header), isBound ? binding : Buffer.alloc(0)])
    this.#nonce = nonce ?? process.getBuiltinModule('node:crypto').randomBytes(NONCE_BYTES).toString('base64')
  }

  /** The client's first message. The user is the one of the startup packet, so none is named here. */
  first(): Buffer {
    return Buffer.from(`${this.#header}n=,r=${this.#nonce}`)
  }

  /** The client's final message. @throws {Error} when the server's first one is not what SCRAM says */
  async final(serverFirst: Buffer): Promise<Buffer> {
    const text = serverFirst.toString('latin1')
    const found = /^r=([!-+\--~]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,8})(?:,.*)?$/.exec(text)
    if (found === null || serverFirst.length > MAX_MESSAGE_BYTES)
      throw new Error('its first SCRAM message is malformed')
    const [, nonce = '', salt = '', count = ''] = found
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) {
      throw new Error('its SCRAM nonce is not an answer to ours')
    }
    const iterations = Number(count)
    if (iterations > MAX_ITERATIONS)
      throw new Error(`it asks for ${iterations} iterations of SCRAM, more than ${MAX_ITERATIONS}`)
    const key = await saltedPassword(this.#password, salt, iterations)
    const { createHash } = process.getBuiltinModule('node:crypto')
    const clientKey = hmac(key, 'Client Key')
    const bare = `c=${this.#binding.toString('base64')},r=${nonce}`
    const signed = `n=,r=${this.#nonce},${text},${bare}`
    const signature = hmac(createHash('sha256').update(clientKey).digest(), signed)
    const proof = Buffer.from(clientKey.map((byte, index) => byte ^ signature[index]!))
    this.#serverSignature = hmac(hmac(key, 'Server Key'), signed)
    return Buffer.from(`${bare},p=${proof.toString('base64')}`)
  }

  /** Whether the server's final message proves that it knows the password too. */
  verify(serverFinal: Buffer): boolean {
    const value = /^v=([A-Za-z0-9+/]+={0,2})(?:,.*)?$/.exec(serverFinal.toString('latin1'))?.[1]
    const given = Buffer.from(value ?? '', 'base64')
    const expected = this.#serverSignature
    if (expected === null || given.length !== expected.length) return false
    return process.getBuiltinModule('node:crypto').timingSafeEqual(given, expected)
  }
}

/** Work of a client that proves its password to us: what PostgreSQL demands by default. */
const OWN_ITERATIONS = 4096
const SALT_BYTES = 16

/** Salts of ours, so that a password is digested once. */
const ownSalts = new Map<string, string>()

/** One login of a client at the proxy. */
export class ScramServer {
  readonly #password: string
  readonly #ownNonce: string
  readonly #salt: string
  #clientBare = ''
  #serverFirst = ''
  #header = ''
  #key: Buffer | null = null

  constructor(password: string, ownNonce?: string, salt?: string) {
    const { randomBytes } = process.getBuiltinModule('node:crypto')
    this.#password = password.normalize('NFKC')
    this.#ownNonce = ownNonce ?? randomBytes(NONCE_BYTES).toString('base64')
    this.#salt = salt ?? ownSalts.get(this.#password) ?? randomBytes(SALT_BYTES).toString('base64')
    ownSalts.set(this.#password, this.#salt)
    if (ownSalts.size > MAX_SALTED) ownSalts.delete(ownSalts.keys().next().value as string)
  }

  /** The server's first message. @throws {Error} when the client's is not what SCRAM says */
  async first(clientFirst: Buffer): Promise<Buffer> {
    // No channel is bound: the connection of the application has no TLS. `y`: it would have bound one.
    const found = /^([ny],,)(n=[^,]*,r=([!-+\--~]+)(?:,.*)?)$/.exec(clientFirst.toString('latin1'))
    if (found === null || clientFirst.length > MAX_MESSAGE_BYTES)
      throw new Error('its first SCRAM message is malformed')
    const [, header = '', bare = '', nonce = ''] = found
    this.#header = header
    this.#clientBare = bare
    this.#serverFirst = `r=${nonce}${this.#ownNonce},s=${this.#salt},i=${OWN_ITERATIONS}`
    this.#key = await saltedPassword(this.#password, this.#salt, OWN_ITERATIONS)
    return Buffer.from(this.#serverFirst, 'latin1')
  }

  /** The server's final message; null: the client does not know the password. */
  final(clientFinal: Buffer): Buffer | null {
    const text = clientFinal.toString('latin1')
    const found = /^(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/]+={0,2})$/.exec(text)
    if (found === null || this.#key === null) return null
    const [, bare = '', binding = '', nonce = '', proof = ''] = found
    if (Buffer.from(binding, 'base64').toString('latin1') !== this.#header) return null
    if (!this.#serverFirst.startsWith(`r=${nonce},`)) return null
    const { createHash, timingSafeEqual } = process.getBuiltinModule('node:crypto')
    const signed = `${this.#clientBare},${this.#serverFirst},${bare}`
    const stored = createHash('sha256').update(hmac(this.#key, 'Client Key')).digest()
    const signature = hmac(stored, signed)
    const given = Buffer.from(proof, 'base64')
    if (given.length !== signature.length) return null
    const clientKey = Buffer.from(given.map((byte, index) => byte ^ signature[index]!))
    if (!timingSafeEqual(createHash('sha256').update(clientKey).digest(), stored)) return null
    return Buffer.from(`v=${hmac(hmac(this.#key, 'Server Key'), signed).toString('base64')}`)
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return process.getBuiltinModule('node:crypto').createHmac('sha256', key).update(text, 'latin1').digest()
}

function saltedPassword(password: string, salt: string, iterations: number): Promise<Buffer> {
  const name = JSON.stringify([password, salt, iterations])
  const known = salted.get(name)
  if (known !== undefined) return known
  const made = new Promise<Buffer>((resolve, reject) => {
    const { pbkdf2 } = process.getBuiltinModule('node:crypto')
    pbkdf2(password, Buffer.from(salt, 'base64'), iterations, 32, 'sha256', (error, key) => {
      if (error === null) resolve(key)
      else reject(error)
    })
  })
  salted.set(name, made)
  if (salted.size > MAX_SALTED) salted.delete(salted.keys().next().value as string)
  return made
}
