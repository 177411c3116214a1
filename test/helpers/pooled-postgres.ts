/** A PostgreSQL listener that serves a spec as the operator renders it, in front of real servers on loopback. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../../common/log.ts'
import type { Ambassador, AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { render } from '../../operator/render/render.ts'
import { Compiler } from '../../proxy/config/compile.ts'
import { readRef, refText } from '../../proxy/config/refs.ts'
import { driverMaker } from '../../proxy/drivers.ts'
import { LISTEN_OPTIONS } from '../../proxy/runtime/raw-socket.ts'
import { TlsContexts } from '../../proxy/tls/contexts.ts'
import { discover } from '../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../proxy/upstream/dns/resolver.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER } from './postgres.ts'
import { TestServer } from './tcp.ts'

export interface PooledSetup {
  /** Of the servers, each of a lower priority than the one before. */
  readonly ports: readonly number[]
  readonly postgres?: AmbassadorSpec['postgres']
  readonly role?: 'Primary' | 'Replica'
  readonly limits?: AmbassadorSpec['upstreams'][number]['limits']
  readonly timeouts?: AmbassadorSpec['timeouts']
  readonly user?: string
  readonly password?: string
  /** Certificate of the CA that signed those of the servers; absent: no TLS. */
  readonly ca?: string
}

/** Starts one; `ends` gets what ends it. */
export async function pooledPostgres(given: PooledSetup, ends: (() => unknown)[]) {
  const root = mkdtempSync(join(tmpdir(), 'ambassador-postgres-proxy-'))
  const put = (path: string, name: string, text: string) => {
    mkdirSync(join(root, path), { recursive: true })
    writeFileSync(join(root, path, name), text)
  }
  put('secrets/db', 'password', given.password ?? POSTGRES_PASSWORD)
  if (given.ca !== undefined) put('configmaps/ca', 'ca.crt', given.ca)
  const dirs = { secrets: join(root, 'secrets'), configMaps: join(root, 'configmaps'), isPod: false }
  const configOf = (setup: PooledSetup) => {
    const spec = {
      protocol: 'PostgreSQL',
      listen: { port: 5432 },
      upstreams: [
        {
          name: 'primary',
          endpoints: setup.ports.map((port, priority) => ({ host: '127.0.0.1', port, priority })),
          ...(setup.role && { role: setup.role }),
          ...(setup.limits && { limits: setup.limits }),
          ...(setup.ca && { tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } } } }),
          auth: {
            postgres: {
              username: setup.user ?? POSTGRES_USER,
              password: { secretKeyRef: { name: 'db', key: 'password' } },
            },
          },
        },
      ],
      ...(setup.timeouts && { timeouts: setup.timeouts }),
      ...(setup.postgres && { postgres: setup.postgres }),
    }
    const { config, problems } = render({ ambassador: { metadata: { name: 'orders' }, spec } as unknown as Ambassador })
    assert.ok(config !== null, JSON.stringify(problems))
    return config
  }
  const resolver = new Resolver()
  const compiler = new Compiler({
    dirs,
    tls: new TlsContexts({ read: (ref) => readRef(ref, dirs), name: refText }),
    discover: (each) => discover(each, resolver),
  })
  const commit = (setup: PooledSetup) => compiler.commit(compiler.prepare(configOf(setup)))
  const logged: { readonly fields: object; readonly text: string }[] = []
  const keep = (fields: object, text: string): void => {
    logged.push({ fields, text })
  }
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep }
  const driver = driverMaker(() => {}, { pod: null, log })(commit(given), () => {})
  const listener = await new TestServer(createServer(LISTEN_OPTIONS, (socket) => driver.serve(socket))).listen()
  ends.push(async () => {
    driver.destroy()
    for (const { cluster } of compiler.clusters) cluster.destroy()
    compiler.close()
    await listener.close()
    rmSync(root, { recursive: true, force: true })
  })
  const options = { host: '127.0.0.1', port: listener.port, user: 'anybody', database: 'postgres' }
  return {
    driver,
    port: listener.port,
    options,
    /** What was logged. */
    logged,
    update: (setup: PooledSetup) => driver.update(commit(setup)),
    get pooling() {
      const { counts } = driver
      assert.ok(counts?.protocol === 'TCP' && counts.pooling !== undefined)
      return counts.pooling.numbers
    },
    get waiting() {
      return compiler.clusters[0]!.cluster.connections.pending
    },
  }
}
