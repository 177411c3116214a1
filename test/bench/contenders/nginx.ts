/** nginx with kept connections, a request id and a second try, one worker. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, run } from '../../../build/machine/exec.ts'
import type { Contender, Setting } from '../contender.ts'
import { start } from '../process.ts'

export const nginx: Contender = {
  name: 'nginx',
  features: 'second try, request id',
  prepare: nginxVersion,
  start: (setting) => startNginx(setting, blocksFor(setting)),
}

/** Also for the upstream of every suite. */
export async function nginxVersion(): Promise<string> {
  // It tells its version on the standard error.
  const said = await run('sh', ['-c', 'nginx -v 2>&1']).catch((error: unknown) => {
    if (error instanceof CommandError) return error.stderr
    throw error
  })
  return /nginx\/(\S+)/.exec(said)?.[1] ?? 'unknown'
}

/** Starts one nginx with the blocks that stand in `http`. */
export const startNginx = (setting: Pick<Setting, 'port' | 'core' | 'directory'>, http: string) => {
  const { directory } = setting
  const file = join(directory, 'nginx.conf')
  mkdirSync(join(directory, 'logs'), { recursive: true })
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `  ${name}_temp_path ${join(directory, name)};`)
    .join('\n')
  writeFileSync(
    file,
    `
daemon off;
worker_processes 1;
pid ${join(directory, 'nginx.pid')};
error_log stderr crit;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
${temporary}
${http}
}
`,
  )
  return start(setting.core, 'nginx', ['-p', directory, '-c', file], { port: setting.port })
}

const blocksFor = ({ upstream, port }: Setting): string => {
  const { tls } = upstream
  const secure =
    tls === null
      ? ''
      : `proxy_ssl_trusted_certificate ${tls.caFile}; proxy_ssl_verify on; proxy_ssl_name ${tls.serverName}; proxy_ssl_server_name on;`
  return `
  upstream out { server 127.0.0.1:${upstream.port}; keepalive 100; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass ${tls === null ? 'http' : 'https'}://out;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Request-ID $request_id;
      proxy_next_upstream error timeout http_502 http_503 http_504;
      proxy_next_upstream_tries 4;
      ${secure}
    }
  }
`
}
