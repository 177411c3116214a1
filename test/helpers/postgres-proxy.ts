/** A PostgreSQL listener that serves a spec as the operator renders it, and the files that the spec refers to. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../../common/log.ts'
import type { Ambassador, AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { render } from '../../operator/render/render.ts'
import { Compiler } from '../../proxy/config/compile.ts'
import { readRef, refText } from '../../proxy/config/refs.ts'
import { driverMaker } from '../../proxy/drivers.ts'
import { TlsContexts } from '../../proxy/tls/contexts.ts'
import { discover } from '../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../proxy/upstream/dns/resolver.ts'
import type { Ends } from './ends.ts'
import { serving } from './serving.ts'

/** Mounted Secrets and ConfigMaps. */
export class MountedFiles {
  readonly #root = mkdtempSync(join(tmpdir(), 'ambassador-mounts-'))
  readonly dirs = { secrets: join(this.#root, 'secrets'), configMaps: join(this.#root, 'configmaps'), isPod: false }

  put(kind: 'secrets' | 'configMaps', name: string, key: string, text: string): void {
    const directory = join(this.dirs[kind], name)
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, key), text)
  }

  remove(): void {
    rmSync(this.#root, { recursive: true, force: true })
  }
}

export type PostgresSpec = Omit<AmbassadorSpec, 'protocol' | 'listen'>

/** Starts one; `ends` gets what ends it. */
export async function postgresProxy(
  given: PostgresSpec,
  { dirs }: MountedFiles,
  ends: Ends,
  resolver: Resolver = new Resolver(),
) {
  const configOf = (spec: PostgresSpec) => {
    const ambassador = {
      metadata: { name: 'orders', namespace: 'shop' },
      spec: { ...spec, protocol: 'PostgreSQL', listen: { port: 5432 } },
    }
    const { config, problems } = render({ ambassador: ambassador as unknown as Ambassador })
    assert.ok(config !== null, JSON.stringify(problems))
    return config
  }
  const told: string[] = []
  const compiler = new Compiler({
    dirs,
    tls: new TlsContexts({ read: (ref) => readRef(ref, dirs), name: refText }),
    discover: (each) => discover(each, resolver),
    onHealth: (_cluster, { port }, failure) => told.push(`${port}: ${failure ?? 'well'}`),
    onTokenFailure: (_cluster, message) => told.push(message),
  })
  const commit = (spec: PostgresSpec) => compiler.commit(compiler.prepare(configOf(spec)))
  const lines: Record<string, unknown>[] = []
  const troubles: string[] = []
  const logged: { readonly fields: object; readonly text: string }[] = []
  const keep = (fields: object, text: string): void => {
    logged.push({ fields, text })
  }
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep }
  const make = driverMaker((line) => lines.push(JSON.parse(line)), { pod: null, log })
  const driver = make(commit(given), (reason, detail) => troubles.push(`${reason}: ${detail}`))
  const listener = serving((accepted) => driver.serve(accepted))
  ends.push(async () => {
    driver.destroy()
    for (const { cluster } of compiler.clusters) cluster.destroy()
    compiler.close()
    listener.close()
  })
  return {
    driver,
    compiler,
    port: listener.port,
    /** What its checks and fetches of tokens told. */
    told,
    /** What a person should see. */
    troubles,
    /** Lines of the access and query log. */
    lines,
    /** What the process logged. */
    logged,
    get pooling() {
      const { counts } = driver
      assert.ok(counts?.protocol === 'TCP' && counts.pooling !== undefined)
      return counts.pooling.numbers
    },
    /** Clients that wait for a connection to the server. */
    get waiting() {
      return compiler.clusters[0]!.cluster.connections.pending
    },
    update: (spec: PostgresSpec) => driver.update(commit(spec)),
    /** For an application that knows no password. */
    options: { host: '127.0.0.1', port: listener.port, user: 'anybody', database: 'postgres' },
  }
}
