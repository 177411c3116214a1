/** HTTP/1.1 to HTTP/1.1 and to HTTPS, and the same bytes over TCP and TCP to TLS: heads as applications send them, a small answer. */

import { chmodSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeAuthority } from '../certificates.ts'
import { envoy } from '../contenders/envoy.ts'
import { haproxy } from '../contenders/haproxy.ts'
import { nginx, startNginx } from '../contenders/nginx.ts'
import { ours } from '../contenders/ours.ts'
import { stunnel } from '../contenders/stunnel.ts'
import { freePort } from '../process.ts'
import type { Suite } from './suite.ts'

const CONTENDERS = [ours, haproxy, nginx, envoy]
const PACKAGES = ['haproxy', 'nginx', 'util-linux', 'wrk']
const SERVER_NAME = 'api.payment-provider.com'

/** With Server, Date, Content-Type, Content-Length and Connection of nginx's own: nine fields. */
const ANSWER = `
      default_type application/json;
      add_header Cache-Control "no-store, max-age=0";
      add_header X-Request-Id "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
      add_header Strict-Transport-Security "max-age=31536000; includeSubDomains";
      add_header Vary "Accept-Encoding, Accept";
      return 200 '{"id":"ch_3MmlLrLkdIwHu7ix0snN0B15","object":"charge","amount":1099,"currency":"usd","paid":true,"status":"succeeded"}';
`

export const http: Suite = {
  name: 'http',
  mode: 'HTTP',
  about: 'HTTP/1.1 to HTTP/1.1, 8 fields of request, 9 of response, 118 bytes of body, 32 kept connections',
  contenders: CONTENDERS,
  packages: PACKAGES,
  startUpstream: async ({ core, directory }) => {
    const port = await freePort()
    const running = await startNginx(
      { core, directory, port },
      `  server { listen 127.0.0.1:${port}; location / {${ANSWER}} }`,
    )
    return { upstream: { port, tls: null }, running }
  },
}

/** The answers of `http` with a body that nginx sends from a file; CPU per request divided by the size is CPU per byte. */
const bodies = (name: string, bytes: number, size: string): Suite => ({
  name,
  mode: 'HTTP',
  about: `HTTP/1.1 to HTTP/1.1 as http, with ${size} of body`,
  contenders: CONTENDERS,
  packages: PACKAGES,
  startUpstream: async ({ core, directory }) => {
    const port = await freePort()
    writeFileSync(join(directory, 'body'), Buffer.alloc(bytes, 'ambassador '))
    // The worker of nginx is another user when it is started by root.
    for (const each of [directory, dirname(directory)]) chmodSync(each, 0o711)
    const running = await startNginx(
      { core, directory, port },
      `  sendfile on; server { listen 127.0.0.1:${port}; location / { root ${directory}; try_files /body =500; } }`,
    )
    return { upstream: { port, tls: null }, running }
  },
})

export const http16k = bodies('http-16k', 16 * 1024, '16 KiB')
export const http1m = bodies('http-1m', 1024 * 1024, '1 MiB')

export const https: Suite = {
  name: 'https',
  mode: 'HTTP',
  about: 'HTTP/1.1 to HTTPS with chain and name verified, otherwise as http',
  contenders: CONTENDERS,
  packages: [...PACKAGES, 'openssl'],
  startUpstream: async ({ core, directory }) => {
    const port = await freePort()
    const { caFile, certificateFile, keyFile } = await makeAuthority(directory, SERVER_NAME)
    const tls = `ssl_certificate ${certificateFile}; ssl_certificate_key ${keyFile}; ssl_session_cache shared:all:10m;`
    const running = await startNginx(
      { core, directory, port },
      `  server { listen 127.0.0.1:${port} ssl; ${tls} location / {${ANSWER}} }`,
    )
    return { upstream: { port, tls: { caFile, serverName: SERVER_NAME } }, running }
  },
}

export const tcp: Suite = {
  name: 'tcp',
  mode: 'TCP',
  about: 'TCP to TCP, the messages of http on 32 kept connections',
  contenders: [ours, haproxy, envoy],
  packages: PACKAGES,
  startUpstream: http.startUpstream,
}

export const tls: Suite = {
  name: 'tls',
  mode: 'TCP',
  about: 'TCP to TLS with chain and name verified, otherwise as tcp',
  contenders: [ours, haproxy, envoy, stunnel],
  packages: [...PACKAGES, 'openssl', 'stunnel4'],
  startUpstream: https.startUpstream,
}
