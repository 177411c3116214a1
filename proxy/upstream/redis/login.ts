/** Dials a Redis server, logs in, and makes sure that it is one and plays the part that is wanted. */
import type { Reason } from '../../../common/reasons.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import { now } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { type Dial, type DialFailure, type Dialler, type DialTarget, type DialTimes, dial } from '../connector.ts'
import { addressName } from '../endpoint.ts'
import { encodeCommand, type Reply, ReplyError } from './resp.ts'
import { Talk } from './talk.ts'

/** What the part of a server must be: that of the master, of a replica whose link to its master is up, or any. */
export type RedisRole = 'Master' | 'Replica' | null

/** How the connections of a cluster log in. */
export interface RedisLogin {
  /** Its `line` is the AUTH command; null: nothing is sent. */
  readonly credential: HeaderCredential | null
  readonly role: RedisRole
}

export interface LoginFailure extends DialFailure {
  /** The server's own words, when it refused; null otherwise. */
  readonly reply: string | null
}

/** Exactly one of the two is called, later than logIn() itself, and none after cancel(). */
export interface LoginVisitor {
  /** Set `socket.handler` before returning. */
  onLoggedIn(socket: RawSocket, times: DialTimes): void
  onLoginFailed(failure: LoginFailure): void
}

const PING = encodeCommand(['PING'])
const ROLE = encodeCommand(['ROLE'])
/** Of a server whose commands were renamed. */
const UNKNOWN = /^ERR unknown command/
/** Of a server with `maxclients` connections, and of one in protected mode. */
const UNWELCOME = /^(ERR max number of clients|DENIED )/

/**
 * Begins to dial and log in, all within target.timeoutMs. A server that loads its data or waits for its master is one to talk to:
 * it says so itself to whoever asks.
 * @param isCheck such a server is a failure too
 */
export function logIn(target: DialTarget, login: RedisLogin, visitor: LoginVisitor, isCheck = false): Dial {
  const attempt = new LoginAttempt(target, login, visitor, isCheck)
  attempt.start()
  return attempt
}

/** The same over a connection that is there: asks within timeoutMs. */
export function logInOver(
  raw: RawSocket,
  target: DialTarget,
  login: RedisLogin,
  visitor: LoginVisitor,
  isCheck = false,
): Dial {
  const attempt = new LoginAttempt(target, login, visitor, isCheck)
  attempt.onDialled(raw, { connectMs: 0, tlsMs: 0 })
  return attempt
}

class LoginAttempt implements Dial, Dialler {
  readonly #target: DialTarget
  readonly #login: RedisLogin
  readonly #visitor: LoginVisitor
  readonly #isCheck: boolean
  readonly #startedAt = now()
  #dial: Dial | null = null
  #talk: Talk | null = null

  constructor(target: DialTarget, login: RedisLogin, visitor: LoginVisitor, isCheck: boolean) {
    this.#target = target
    this.#login = login
    this.#visitor = visitor
    this.#isCheck = isCheck
  }

  start(): void {
    this.#dial = dial(this.#target, this)
  }

  cancel(): void {
    this.#dial?.cancel()
    this.#talk?.close()
  }

  onDialFailed(failure: DialFailure): void {
    this.#visitor.onLoginFailed({ ...failure, reply: null })
  }

  onDialled(raw: RawSocket, times: DialTimes): void {
    const { credential, role } = this.#login
    const talk = new Talk(raw, { onEnd: (why) => this.#fail(this.#reasonOf(why), why, null) })
    this.#talk = talk
    // What was used of the time, the server need not know.
    talk.within(Math.max(1, this.#startedAt + this.#target.timeoutMs - now()))
    if (credential?.line != null) talk.ask(credential.line, (reply) => this.#onAuth(reply))
    talk.ask(role === null ? PING : ROLE, (reply) => {
      if (this.#isUnwelcome(reply)) return
      const wrong = this.#wrongHeader(reply) ?? (role === null ? this.#wrongPong(reply) : wrongRole(reply, role))
      if (wrong === null) this.#visitor.onLoggedIn(talk.release(), times)
      else this.#fail('no_healthy_endpoint', wrong, null)
    })
  }

  #reasonOf(why: string): Reason {
    return why.startsWith('did not answer') ? 'connect_timeout' : 'upstream_reset'
  }

  #onAuth(reply: Reply): void {
    if (!(reply instanceof ReplyError) || this.#isUnwelcome(reply)) return
    const wrong = this.#wrongHeader(reply)
    if (wrong !== null) this.#fail('no_healthy_endpoint', wrong, null)
    else this.#fail('auth_unavailable', `refused the credential: ${reply.text}`, reply.text)
  }

  /** A server that takes no connection says so to whatever it is asked, and closes. True: it was one. */
  #isUnwelcome(reply: Reply): boolean {
    if (!(reply instanceof ReplyError) || !UNWELCOME.test(reply.text)) return false
    this.#fail('no_healthy_endpoint', `takes no connection: ${reply.text.split('. ', 1)[0]}`, reply.text)
    return true
  }

  /** A server that takes the header for a command answers once more than it is asked: nothing may follow on such a connection. */
  #wrongHeader(reply: Reply): string | null {
    if (this.#target.proxyProtocol == null || !(reply instanceof ReplyError)) return null
    if (!/^ERR unknown command .PROXY/i.test(reply.text)) return null
    return 'does not know the PROXY protocol, remove proxyProtocol from the upstream'
  }

  #wrongPong(reply: Reply): string | null {
    if (!(reply instanceof ReplyError)) return null
    // Without a credential of ours, NOAUTH is what a server says that waits for the application's own; one may forbid PING, or not have it.
    if (!this.#isCheck || reply.code === 'NOAUTH' || reply.code === 'NOPERM' || UNKNOWN.test(reply.text)) return null
    return `answered PING with: ${reply.text}`
  }

  #fail(reason: Reason, what: string, reply: string | null): void {
    this.#talk?.close()
    const { host, ip, port } = this.#target.address
    const at = addressName(ip, port)
    const name = host === ip ? `endpoint ${at}` : `endpoint '${host}' (${at})`
    this.#visitor.onLoginFailed({ reason, detail: `${name} ${what}`, reply })
  }
}

/** Errors that say nothing of the role: the user may not ask, or a script runs, which only somebody who is connected can stop. */
const NO_ANSWER: ReadonlySet<string> = new Set(['NOPERM', 'ERR', 'NOAUTH', 'BUSY'])

/** What speaks against the answer to ROLE; null: nothing, or it cannot be had. */
function wrongRole(reply: Reply, wanted: 'Master' | 'Replica'): string | null {
  if (reply instanceof ReplyError) return NO_ANSWER.has(reply.code) ? null : `answered ROLE with: ${reply.text}`
  const [role, , , link] = Array.isArray(reply) ? reply : []
  if (wanted === 'Master') return role === 'master' ? null : `is not the master, its role is '${role}'`
  if (role === 'slave' && link === 'connected') return null
  return role === 'slave'
    ? `is a replica without its master, its link is '${link}'`
    : `is not a replica, its role is '${role}'`
}
