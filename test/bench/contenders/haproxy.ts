/** HAProxy with retries and a unique id, one thread. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../../build/machine/exec.ts'
import { type Contender, type Setting, upstreamConnections } from '../contender.ts'
import { start } from '../process.ts'

export const haproxy: Contender = {
  name: 'haproxy',
  features: 'retries, unique id',
  prepare: async () => /version (\S+)/.exec(await run('haproxy', ['-v']))?.[1] ?? 'unknown',
  start: (setting) => {
    const file = join(setting.directory, 'haproxy.cfg')
    writeFileSync(file, configFor(setting))
    return start(setting.core, 'haproxy', ['-db', '-f', file], { port: setting.port })
  },
}

const configFor = ({ mode, upstream, port }: Setting): string => {
  const { tls } = upstream
  const secure =
    tls === null
      ? ''
      : ` ssl verify required ca-file ${tls.caFile} sni str(${tls.serverName}) verifyhost ${tls.serverName}`
  if (mode !== 'HTTP') {
    return `
global
  nbthread 1
  maxconn 6000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  retries 3
  option redispatch
listen in
  bind 127.0.0.1:${port}
  server upstream 127.0.0.1:${upstream.port} maxconn ${upstreamConnections(mode)}${secure}
`
  }
  return `
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  retries 3
  retry-on conn-failure empty-response response-timeout 502 503 504
  option redispatch
frontend in
  bind 127.0.0.1:${port}
  unique-id-format %[uuid]
  unique-id-header X-Request-ID
  default_backend out
backend out
  server upstream 127.0.0.1:${upstream.port} maxconn ${upstreamConnections(mode)}${secure}
`
}
