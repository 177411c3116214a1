/** Streams of bytes over a few connections, TCP to TCP and TCP to TLS: CPU time for each GiB. */

import { join } from 'node:path'
import { run } from '../../../build/machine/exec.ts'
import { makeAuthority } from '../certificates.ts'
import { envoy } from '../contenders/envoy.ts'
import { haproxy } from '../contenders/haproxy.ts'
import { ours } from '../contenders/ours.ts'
import { stunnel } from '../contenders/stunnel.ts'
import type { Load, LoadOptions } from '../load.ts'
import { freePort, start } from '../process.ts'
import type { Suite } from './suite.ts'

const PROGRAM = join(import.meta.dirname, '../stream.ts')
const SERVER_NAME = 'stream.example.com'
const CONNECTIONS = 4
const GIB = 1024 ** 3

/** From the upstream, or to it. */
type Way = 'd' | 'u'

const loadStream = async (way: Way, { core, port, seconds }: LoadOptions): Promise<Load> => {
  const args = ['-c', core, process.execPath, PROGRAM, 'load', port, CONNECTIONS, seconds, way]
  const said = await run('taskset', args.map(String), { timeoutMs: (seconds + 20) * 1000 })
  const line = /^JSON (.*)$/m.exec(said)?.[1]
  if (line === undefined) throw new Error(`stream: printed no summary:\n${said}`)
  const summary = JSON.parse(line) as { readonly bytes: number; readonly errors: number; readonly seconds: number }
  const count = summary.bytes / GIB
  return { count, errors: summary.errors, perSecond: count / summary.seconds, p50Ms: null, p99Ms: null }
}

const suite = (name: string, hasTls: boolean, way: Way): Suite => ({
  name,
  mode: 'TCP',
  about: `TCP to ${hasTls ? 'TLS' : 'TCP'}, streams ${way === 'd' ? 'from' : 'to'} the upstream on ${CONNECTIONS} connections`,
  unit: 'GiB',
  contenders: hasTls ? [ours, haproxy, envoy, stunnel] : [ours, haproxy, envoy],
  packages: ['haproxy', 'util-linux', ...(hasTls ? ['openssl', 'stunnel4'] : [])],
  load: (options) => loadStream(way, options),
  startUpstream: async ({ core, directory }) => {
    const port = await freePort()
    const authority = hasTls ? await makeAuthority(directory, SERVER_NAME) : null
    const files = authority === null ? [] : [authority.certificateFile, authority.keyFile]
    const running = await start(core, process.execPath, [PROGRAM, 'serve', String(port), ...files], { port })
    const tls = authority === null ? null : { caFile: authority.caFile, serverName: SERVER_NAME }
    return { upstream: { port, tls }, running }
  },
})

export const streams: readonly Suite[] = [
  suite('tcp-bulk', false, 'd'),
  suite('tcp-bulk-up', false, 'u'),
  suite('tls-bulk', true, 'd'),
  suite('tls-bulk-up', true, 'u'),
]
