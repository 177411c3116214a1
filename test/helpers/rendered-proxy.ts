/** An HTTP listener that serves a spec as the operator renders it: schema, rendering, compiler and driver are the real ones. */
import assert from 'node:assert/strict'
import type { Ambassador, AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { render } from '../../operator/render/render.ts'
import { Compiler } from '../../proxy/config/compile.ts'
import { readRef, refText } from '../../proxy/config/refs.ts'
import { checkRoutes } from '../../proxy/config/routes.ts'
import { driverMaker } from '../../proxy/drivers.ts'
import { TlsContexts } from '../../proxy/tls/contexts.ts'
import { discover } from '../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../proxy/upstream/dns/resolver.ts'
import { HttpTestClient } from './http-client.ts'
import { serving } from './serving.ts'

type HttpSpec = Omit<AmbassadorSpec, 'protocol' | 'listen' | 'accessLog'>

/** Starts one; `ends` gets what ends it. Secrets are looked up below `secrets`. */
export async function renderedProxy(given: HttpSpec, ends: (() => unknown)[], secrets = '/nonexistent') {
  const dirs = { secrets, configMaps: '/nonexistent', isPod: false }
  const configOf = (spec: HttpSpec) => {
    const ambassador = {
      metadata: { name: 'test' },
      spec: { ...spec, protocol: 'HTTP', listen: { port: 8081 }, accessLog: { mode: 'All' } },
    } as unknown as Ambassador
    const { config, problems } = render({ ambassador })
    assert.ok(config !== null, JSON.stringify(problems))
    checkRoutes(config)
    return config
  }
  const resolver = new Resolver()
  const compiler = new Compiler({
    dirs,
    tls: new TlsContexts({ read: (ref) => readRef(ref, dirs), name: refText }),
    discover: (config) => discover(config, resolver),
  })
  const commit = (spec: HttpSpec) => compiler.commit(compiler.prepare(configOf(spec)))
  const lines: Record<string, unknown>[] = []
  const wake: (() => void)[] = []
  const write = (line: string) => {
    lines.push(JSON.parse(line))
    for (const each of wake.splice(0)) each()
  }
  const driver = driverMaker(write)(commit(given), () => {})
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
    update: (spec: HttpSpec) => driver.update(commit(spec)),
    /** Resolves when that many lines of the access log were written. */
    logged: async (count: number) => {
      while (lines.length < count) await new Promise<void>((resolve) => wake.push(resolve))
      return lines
    },
    connect: (): HttpTestClient => {
      const client = new HttpTestClient({ port: listener.port })
      ends.push(() => client.socket.destroy())
      return client
    },
  }
}
