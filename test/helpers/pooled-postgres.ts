/** A PostgreSQL listener in front of real servers on loopback, whose connections clients share. */
import type { AmbassadorSpec } from '../../operator/api/ambassador.ts'
import type { Ends } from './ends.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER } from './postgres.ts'
import { MountedFiles, type PostgresSpec, postgresProxy } from './postgres-proxy.ts'

type Upstream = AmbassadorSpec['upstreams'][number]

export interface PooledSetup extends Pick<PostgresSpec, 'postgres' | 'timeouts'>, Pick<Upstream, 'limits' | 'role'> {
  /** Of the servers, each of a lower priority than the one before. */
  readonly ports: readonly number[]
  readonly user?: string
  readonly password?: string
  /** Certificate of the CA that signed those of the servers; absent: no TLS. */
  readonly ca?: string
}

/** Starts one; `ends` gets what ends it. */
export async function pooledPostgres(given: PooledSetup, ends: Ends) {
  const files = new MountedFiles()
  files.put('secrets', 'db', 'password', given.password ?? POSTGRES_PASSWORD)
  if (given.ca !== undefined) files.put('configMaps', 'ca', 'ca.crt', given.ca)
  ends.push(() => files.remove())
  const specOf = ({ ports, role, limits, ca, user, timeouts, postgres }: PooledSetup): PostgresSpec => {
    const upstream = {
      name: 'primary',
      endpoints: ports.map((port, priority) => ({ host: '127.0.0.1', port, priority, weight: 1 })),
      ...(role && { role }),
      ...(limits && { limits }),
      ...(ca && { tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } } } }),
      auth: {
        postgres: { username: user ?? POSTGRES_USER, password: { secretKeyRef: { name: 'db', key: 'password' } } },
      },
    }
    return {
      upstreams: [upstream] as PostgresSpec['upstreams'],
      ...(timeouts && { timeouts }),
      ...(postgres && { postgres }),
    }
  }
  const proxy = await postgresProxy(specOf(given), files, ends)
  return Object.assign(proxy, { files, change: (setup: PooledSetup) => proxy.update(specOf(setup)) })
}
