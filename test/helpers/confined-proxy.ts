/** The proxy as a process that may open few files, and a way to have it use them all up. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { configHash } from '../../common/config-hash.ts'
import { type ProxyConfig, proxyConfig } from '../../common/proxy-config.ts'
import { plainConfig } from '../../proxy/config/plain.ts'
import type { Ends } from './ends.ts'
import { freePort } from './ports.ts'
import { ProxyProcess } from './proxy-process.ts'

const FILES = 120

export interface ConfinedSetup {
  readonly protocol: ProxyConfig['protocol']
  readonly upstreamPort: number
  /** Of the cluster, beside its endpoint. */
  readonly cluster?: Partial<ProxyConfig['clusters'][number]>
  /** Of the config, beside its clusters. */
  readonly config?: Partial<Omit<ProxyConfig, 'clusters'>>
}

/** Starts one that may have FILES files open and logs every request; `ends` gets what ends it. */
export async function confinedProxy({ protocol, upstreamPort, cluster, config }: ConfinedSetup, ends: Ends) {
  const listenPort = await freePort()
  const { hash: _, ...plain } = plainConfig({
    namespace: '',
    host: '127.0.0.1',
    port: upstreamPort,
    listenPort,
    protocol: protocol === 'HTTP' ? 'HTTP' : 'TCP',
    maxRetries: 0,
    tls: null,
  })
  const whole = {
    ...plain,
    protocol,
    accessLog: { mode: 'All' as const, sample: 0 },
    ...config,
    clusters: plain.clusters.map((each) => ({ ...each, ...cluster })),
  }
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-files-'))
  ends.push(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'config.json')
  writeFileSync(file, JSON.stringify(proxyConfig.parse({ ...whole, hash: configHash(whole) })))
  const proxy = await ProxyProcess.start(
    { AMBASSADOR_CONFIG: file, AMBASSADOR_MAX_CLIENT_CONNECTIONS: '1000' },
    ['proxy/main.ts'],
    ['sh', '-c', `ulimit -n ${FILES} && exec "$@"`, 'sh'],
  )
  ends.push(() => proxy.end())
  await proxy.ready()
  const idle: Socket[] = []
  ends.push(() => {
    for (const socket of idle) socket.destroy()
  })
  // A file that was open before the limit was set has a number above it.
  const open = (): number => readdirSync(`/proc/${proxy.child.pid}/fd`).filter((fd) => Number(fd) < FILES).length
  const metrics = async (): Promise<string> => (await proxy.get('/metrics')).body
  return {
    proxy,
    port: listenPort,
    /** How many files it may have open, and how many it has. */
    files: FILES,
    open,
    /** Adds connections until the process has every file open that it may. */
    exhaust: async () => {
      while (open() < FILES) {
        idle.push(connect(listenPort, '127.0.0.1').on('error', () => {}))
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    },
    /** Ends them. */
    release: async () => {
      for (const socket of idle.splice(0)) socket.destroy()
      while (open() > FILES / 2) await new Promise((resolve) => setTimeout(resolve, 5))
    },
    metrics,
    /** Dials that came to nothing because no file was left. */
    exhaustedDials: async (): Promise<number> =>
      Number(/^ambassador_exhausted_dials_total (\d+)$/m.exec(await metrics())?.[1]),
  }
}
