/** The check of a PostgreSQL server: logs in with the credential of the upstream and asks for the role that is wanted. */
import type { ClusterConfig, RoleConfig } from '../../../common/proxy-config.ts'
import type { LoginSource, PostgresLogin } from '../../policy/credential.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { Dial, StartTls } from '../../upstream/connector.ts'
import type { Address } from '../../upstream/discovery/discovery.ts'
import type { Prober } from '../../upstream/health/check.ts'
import { Login } from './login.ts'
import { tlsOf } from './start-tls.ts'
import { bytesOf, startupPacket } from './startup.ts'

/** Said by a server that is alive and does not let this user into this database, so that its role cannot be asked. */
const ELSEWHERE = ['3D000', '42501', '28000']
/** Said by a server that has no connection left: it is what it was. */
const FULL = '53300'

export class PostgresProber implements Prober {
  readonly kind = 'postgres'
  readonly startTls: StartTls | null
  readonly alpn: readonly string[] | null
  readonly #source: LoginSource
  readonly #role: RoleConfig
  /** How many databases were named that it was not let into, one in each check. */
  #refusals = 0

  constructor(source: LoginSource, config: ClusterConfig) {
    this.#source = source
    this.#role = config.role ?? 'Any'
    const { startTls, alpn } = tlsOf(config)
    this.startTls = startTls
    this.alpn = alpn
  }

  get isUnable(): boolean {
    return this.#source.login === null
  }

  probe(socket: RawSocket, address: Address, timeoutMs: number, done: (failure: string | null) => void): Dial {
    const credential = this.#source.login
    if (credential === null) {
      socket.destroy()
      return { cancel() {} }
    }
    const { username } = credential
    const database = this.#database(credential)
    return new Login({
      upstream: socket,
      address,
      startup: startupPacket({ user: bytesOf(username), database, application_name: 'ambassador health check' }),
      credential,
      timeoutMs,
      role: this.#role,
      onWelcome: () => {
        socket.destroy()
        done(null)
      },
      onFailure: ({ detail, sqlstate }) => {
        const isElsewhere = sqlstate !== null && ELSEWHERE.includes(sqlstate)
        if (isElsewhere) this.#refusals++
        const isAlive = sqlstate === FULL || (isElsewhere && this.#role === 'Any')
        done(isAlive ? null : detail)
      },
    })
  }

  /** Where the application is let in, this user is too; before it came, the ones that nearly every server has. */
  #database({ username }: PostgresLogin): string {
    const names = [this.#source.database ?? 'postgres', 'postgres', bytesOf(username)]
    return names[this.#refusals % names.length] ?? 'postgres'
  }
}
