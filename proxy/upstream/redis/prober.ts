/** The check of a Redis server: logs in with the credential of the upstream, and asks for its role or whether it answers. */
import type { HeaderCredential } from '../../policy/credential.ts'
import type { DialGuard } from '../../policy/dial-guard.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { Dial } from '../connector.ts'
import type { Address } from '../discovery/discovery.ts'
import type { Prober } from '../health/check.ts'
import { logInOver, type RedisLogin, type RedisRole } from './login.ts'

export class RedisProber implements Prober {
  readonly kind = 'redis'
  readonly startTls = null
  readonly alpn = null
  readonly #login: RedisLogin
  readonly #guard: DialGuard

  constructor(credential: HeaderCredential | null, role: RedisRole, guard: DialGuard) {
    this.#login = { credential, role }
    this.#guard = guard
  }

  get isUnable(): boolean {
    const { credential } = this.#login
    return credential !== null && credential.line === null
  }

  probe(socket: RawSocket, address: Address, timeoutMs: number, done: (failure: string | null) => void): Dial {
    const target = { address, guard: this.#guard, tls: null, alpn: null, timeoutMs }
    return logInOver(
      socket,
      target,
      this.#login,
      {
        onLoggedIn: (raw) => {
          raw.destroy()
          done(null)
        },
        onLoginFailed: ({ detail }) => done(detail),
      },
      true,
    )
  }
}
