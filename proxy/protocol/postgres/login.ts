/** Logs in at a server with a credential of ours, and hands on what it says of the session once it has let us in. */
import type { RoleConfig } from '../../../common/proxy-config.ts'
import type { Reason } from '../../../common/reasons.ts'
import type { PostgresLogin } from '../../policy/credential.ts'
import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { TlsSocket } from '../../runtime/tls-socket.ts'
import type { DialFailure } from '../../upstream/connector.ts'
import { Auth, Back, HEAD_BYTES, message, PASSWORD, QUERY, Transaction } from './messages.ts'
import { errorResponse, withHint } from './respond.ts'
import { Scram } from './scram.ts'

export interface LoginOptions {
  readonly upstream: RawSocket
  /** Whom it is connected to: a token may be for one server alone. */
  readonly address: { readonly host: string; readonly port: number }
  /** The startup packet, with the user of the credential. */
  readonly startup: Buffer
  readonly credential: PostgresLogin
  readonly timeoutMs: number
  /** What the server must be. */
  readonly role: RoleConfig
  /** `welcome`: from AuthenticationOk to the bytes behind the first ReadyForQuery, for the application. */
  readonly onWelcome: (welcome: Buffer, key: Buffer | null) => void
  /** `response`: what the application gets. `isFinal`: the server is alive and said no; another one would too. */
  readonly onFailure: (failure: LoginFailure, response: Buffer, isFinal: boolean) => void
}

export interface LoginFailure extends DialFailure {
  /** Of the server's refusal; null when it did not refuse in words. */
  readonly sqlstate: string | null
}

/** A server that says more than this before it is ready is not PostgreSQL. */
const MAX_BYTES = 256 * 1024
/** Process and secret, which has up to 256 bytes from protocol 3.2 on. */
const KEY_BYTES = { least: 8, most: 260 } as const
const SQLSTATE = /^[0-9A-Z]{5}$/
const NOT_POSTGRESQL = 'does not speak the protocol of PostgreSQL, check host and port'

/** What a server answers to ASK_ROLE. */
const Role = { standby: 0x73, readOnly: 0x72, primary: 0x70 } as const
type RoleLetter = (typeof Role)[keyof typeof Role]

/**
 * `s`: a standby. `r`: no standby, and yet made read-only as a whole, which is how a primary is fenced; a user, a database or an application
 * that is read-only by itself does not make the server so. The list of settings is slow to make, and read only when the default is on.
 * Operators are named in full: the application may have asked for a search path.
 */
const ASK_ROLE = message(
  QUERY,
  `select case when pg_catalog.pg_is_in_recovery() then 's'
 when pg_catalog.current_setting('default_transaction_read_only') operator(pg_catalog.=) 'on' and exists (
 select from pg_catalog.pg_settings where name operator(pg_catalog.=) 'default_transaction_read_only'
 and source operator(pg_catalog.=) any ('{configuration file,command line}'::pg_catalog.text[])) then 'r' else 'p' end`,
)

export class Login implements SocketHandler {
  readonly #options: LoginOptions
  readonly #timer: CoarseTimer
  #bytes = Buffer.alloc(0)
  #welcome: Buffer[] = []
  #welcomeBytes = 0
  #key: Buffer | null = null
  #scram: Scram | null = null
  /** Requests to prove who we are: a server makes one, and one more in the middle of SCRAM. */
  #requests = 0
  #isVerified = true
  #isLetIn = false
  /** Asked after the login. */
  #role: 'not asked' | 'asked' | RoleLetter = 'not asked'
  #isOver = false

  constructor(options: LoginOptions) {
    this.#options = options
    this.#timer = new CoarseTimer(() => this.#fail(`did not finish the login within ${options.timeoutMs} ms`))
    this.#timer.set(now() + options.timeoutMs)
    options.upstream.handler = this
    options.upstream.write(options.startup)
  }

  cancel(): void {
    if (this.#isOver) return
    this.#end()
    this.#options.upstream.destroy()
  }

  onData(chunk: Buffer, length: number): void {
    if (this.#isOver) return
    this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, length)])
    this.#read()
  }

  onDrain(): void {}

  onEnd(): void {
    this.#fail('closed the connection during the login')
  }

  onClose(): void {
    this.#fail('broke the connection during the login')
  }

  #read(): void {
    while (!this.#isOver && this.#bytes.length >= HEAD_BYTES) {
      const length = this.#bytes.readInt32BE(1)
      if (length < 4 || length + this.#welcomeBytes > MAX_BYTES) {
        this.#fail(NOT_POSTGRESQL)
        return
      }
      if (this.#bytes.length <= length) return
      const whole = this.#bytes.subarray(0, length + 1)
      this.#bytes = this.#bytes.subarray(length + 1)
      this.#onMessage(whole[0]!, whole.subarray(HEAD_BYTES), whole)
    }
  }

  #onMessage(code: number, body: Buffer, whole: Buffer): void {
    switch (code) {
      case Back.authentication:
        this.#onAuthentication(body, whole)
        return
      case Back.error:
        this.#refused(body)
        return
      case Back.negotiateVersion:
      case Back.notice:
      case Back.parameterStatus:
        this.#keep(whole)
        return
      case Back.backendKeyData:
        if (body.length < KEY_BYTES.least || body.length > KEY_BYTES.most) break
        this.#key = Buffer.from(body)
        this.#keep(whole)
        return
      case Back.readyForQuery: {
        if (body.length !== 1 || body[0] !== Transaction.idle) break
        if (!this.#isLetIn) {
          this.#fail('says that it is ready before it has let us in')
          return
        }
        if (this.#options.role !== 'Any' && this.#role === 'not asked') {
          this.#role = 'asked'
          this.#options.upstream.write(ASK_ROLE)
          return
        }
        if (this.#isWrongRole()) return
        this.#end()
        this.#options.onWelcome(Buffer.concat([...this.#welcome, whole, this.#bytes]), this.#key)
        return
      }
      case Back.dataRow:
      case Back.rowDescription:
      case Back.commandComplete:
        if (this.#role === 'not asked') break
        // One column: its count, its length, and the letter.
        if (code === Back.dataRow) this.#role = body.at(-1) as RoleLetter
        return
      default:
        break
    }
    this.#fail(NOT_POSTGRESQL)
  }

  #keep(whole: Buffer): void {
    this.#welcome.push(whole)
    this.#welcomeBytes += whole.length
  }

  /** Refuses a server that is not what the upstream wants, so that no write reaches a standby, a demoted or a fenced primary. */
  #isWrongRole(): boolean {
    const { role } = this.#options
    if (role === 'Any' || this.#role === (role === 'Replica' ? Role.standby : Role.primary)) return false
    let is = 'not a standby'
    if (this.#role === Role.standby) is = 'a standby (pg_is_in_recovery() is true)'
    else if (this.#role === Role.readOnly && role === 'Primary')
      is = 'read-only as a whole (default_transaction_read_only is on)'
    this.#fail(
      `is ${is}, and the role of the upstream is ${role}: add an endpoint of that role, or set role: Any`,
      'no_healthy_endpoint',
    )
    return true
  }

  #onAuthentication(body: Buffer, whole: Buffer): void {
    const { credential, upstream, address } = this.#options
    const kind = body.length < 4 ? -1 : body.readInt32BE(0)
    if (this.#isLetIn) this.#fail('asks for a proof when it has let us in already')
    else if (kind === Auth.ok && body.length === 4) {
      // RFC 5802 section 3: the exchange proves the server too; one that skips its half may be somebody else.
      if (!this.#isVerified) this.#fail('ended SCRAM without a proof that it knows the password')
      else {
        this.#isLetIn = true
        this.#keep(whole)
      }
    } else if (kind === Auth.saslFinal && this.#scram !== null) {
      this.#isVerified = this.#scram.verify(body.subarray(4))
      if (!this.#isVerified) this.#fail('does not prove that it knows the password: somebody else answers')
    } else if (++this.#requests > (this.#scram === null ? 1 : 2)) this.#fail('asks again for what it was told')
    else if (kind === Auth.saslContinue && this.#scram !== null) {
      this.#scram.final(body.subarray(4)).then(
        (final) => this.#answer(final),
        (error: Error) => this.#fail(error.message),
      )
    } else if (this.#scram !== null) this.#fail('does not go on with SCRAM')
    else if (credential.tokens === null) this.#prove(kind, body, credential.password)
    else if (!upstream.isTls) this.#fail('gets no token on a connection without TLS: add tls')
    else {
      const asked = Buffer.from(body)
      credential.tokens.tokenFor(address.host, address.port).then(
        (token) => this.#prove(kind, asked, token),
        (error: Error) => this.#unavailable(error.message),
      )
    }
  }

  #prove(kind: number, body: Buffer, password: string | null): void {
    const { credential, upstream } = this.#options
    const { username } = credential
    if (this.#isOver) return
    if (password === null) this.#fail('asks for a password, and there is none: set auth.postgres.password')
    else if (kind === Auth.cleartext) {
      if (upstream.isTls) this.#answer(Buffer.from(`${password}\0`))
      else this.#fail('asks for the password in clear text on a connection without TLS: add tls')
    } else if (kind === Auth.md5 && body.length >= 8) {
      const inner = md5(`${password}${username}`)
      this.#answer(Buffer.from(`md5${md5(Buffer.concat([Buffer.from(inner), body.subarray(4, 8)]))}\0`))
    } else if (kind === Auth.sasl) this.#beginScram(body.subarray(4).toString('latin1').split('\0'), password)
    else this.#fail(`asks for a kind of authentication (${kind}) that is not supported: use scram-sha-256`)
  }

  /** There is no token: no other server would get one either. */
  #unavailable(detail: string): void {
    if (this.#isOver) return
    this.#end()
    this.#options.upstream.destroy()
    const failure = { reason: 'auth_unavailable', detail, sqlstate: null } as const
    this.#options.onFailure(failure, errorResponse('auth_unavailable', detail), true)
  }

  #beginScram(offered: readonly string[], password: string): void {
    const { upstream } = this.#options
    const isOffered = offered.includes('SCRAM-SHA-256-PLUS')
    const known = isOffered ? endPoint : () => 'not offered' as const
    const binding = upstream instanceof TlsSocket ? known(upstream) : null
    if (!Buffer.isBuffer(binding) && !offered.includes('SCRAM-SHA-256')) {
      this.#fail('offers no kind of SASL that is supported: use scram-sha-256')
      return
    }
    const scram = new Scram(password, binding)
    this.#scram = scram
    this.#isVerified = false
    const first = scram.first()
    const length = Buffer.allocUnsafe(4)
    length.writeInt32BE(first.length)
    this.#options.upstream.write(message(PASSWORD, scram.mechanism, length, first))
  }

  #answer(content: Buffer): void {
    if (!this.#isOver) this.#options.upstream.write(message(PASSWORD, content))
  }

  #refused(fields: Buffer): void {
    const text = (letter: string) =>
      fields
        .toString()
        .split('\0')
        .find((field) => field.startsWith(letter))
        ?.slice(1) ?? ''
    const code = text('C')
    if (!SQLSTATE.test(code)) {
      // Half of an error, or that of a server before the third version of the protocol.
      this.#fail(`refused the login without an SQLSTATE: '${text('M').slice(0, 200)}'`)
      return
    }
    const isOurs = code.startsWith('28')
    const hint = isOurs
      ? `ambassador: auth_unavailable: check username and password of auth.postgres (${this.#options.credential.name})`
      : ''
    this.#end()
    this.#options.upstream.destroy()
    const response = isOurs ? withHint(fields, hint) : message(Back.error, fields)
    const detail = `the server refused the login: ${code} ${text('M')}`
    // It begins, ends or recovers (57P01 to 57P03): another server may take the connection, or this one soon.
    const isPassing = code.startsWith('57P')
    const reason = isPassing ? 'no_healthy_endpoint' : 'auth_unavailable'
    this.#options.onFailure({ reason, detail, sqlstate: code }, response, !isPassing)
  }

  #fail(what: string, reason: Reason = 'upstream_reset'): void {
    if (this.#isOver) return
    this.#end()
    this.#options.upstream.destroy()
    const detail = `the server ${what}`
    this.#options.onFailure({ reason, detail, sqlstate: null }, errorResponse(reason, detail), false)
  }

  #end(): void {
    this.#isOver = true
    this.#timer.release()
  }
}

function md5(text: string | Buffer): string {
  return process.getBuiltinModule('node:crypto').createHash('md5').update(text).digest('hex')
}

/** RFC 5929 section 4.1: the hash of the certificate, by the hash of its signature; SHA-256 for MD5 and SHA-1. Null: it has none. */
function endPoint({ peerCertificate }: TlsSocket): Buffer | null {
  if (peerCertificate === null) return null
  const { createHash, X509Certificate } = process.getBuiltinModule('node:crypto')
  const { signatureAlgorithm = '' } = new X509Certificate(peerCertificate) as { signatureAlgorithm?: string }
  const found = /(?:MD5|SHA-?(1|224|256|384|512))(?![0-9])/i.exec(signatureAlgorithm)
  if (found === null) return null
  const bits = found[1] === undefined || found[1] === '1' ? '256' : found[1]
  return createHash(`sha${bits}`).update(peerCertificate).digest()
}
