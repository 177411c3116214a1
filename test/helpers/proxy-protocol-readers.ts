/** HAProxy and nginx as upstreams that take nothing without a header of the PROXY protocol, and answer what they read in it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Leaf } from './pki.ts'
import { freePort } from './ports.ts'

/** How an endpoint is reached; `tls` is over IPv4. */
export type Way = 'v4' | 'v6' | 'tls' | 'unix'

/**
 * One of the two, with a port for each way. To `GET /` it answers `FROM TO PEER`: the two ends that the header tells of (`-`: it tells
 * of none), and the end that the kernel sees. To `GET /with-ends` it answers 200 only when the header tells of ends.
 */
export interface Reader {
  readonly name: string
  readonly ports: Readonly<Record<Exclude<Way, 'unix'>, number>>
  readonly socket: string
}

/** A port of HAProxy behind which another server stands, which knows nothing of the header. */
export interface Relay {
  readonly to: number
  readonly isTls: boolean
}

interface Place {
  readonly directory: string
  readonly pem: string
  readonly ports: Reader['ports']
  readonly socket: string
}

const NGINX_ENDS =
  '"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port $remote_addr:$remote_port"'

/** @param ends gets what ends it */
export async function startNginx(leaf: Leaf, ends: (() => unknown)[]): Promise<Reader> {
  const place = await placeFor(leaf, ends)
  const { directory, pem, ports, socket } = place
  mkdirSync(join(directory, 'logs'))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(directory, name)};`)
    .join('\n')
  const file = join(directory, 'nginx.conf')
  writeFileSync(
    file,
    `
daemon off;
master_process off;
pid ${join(directory, 'nginx.pid')};
error_log stderr crit;
events { worker_connections 256; }
http {
  access_log off;
  ${temporary}
  server {
    listen 127.0.0.1:${ports.v4} proxy_protocol;
    listen [::1]:${ports.v6} proxy_protocol;
    listen 127.0.0.1:${ports.tls} ssl proxy_protocol;
    listen unix:${socket} proxy_protocol;
    ssl_certificate ${pem};
    ssl_certificate_key ${pem};
    location = / { return 200 ${NGINX_ENDS}; }
    location = /with-ends { if ($proxy_protocol_addr = "") { return 500; } return 200; }
  }
}
`,
  )
  await run('nginx', ['-p', directory, '-c', file], place, ends)
  return { name: 'nginx', ports, socket }
}

/** @param relays by the port of HAProxy that each has */
export async function startHaproxy(
  leaf: Leaf,
  ends: (() => unknown)[],
  relays: ReadonlyMap<number, Relay> = new Map(),
): Promise<Reader> {
  const place = await placeFor(leaf, ends)
  const { directory, pem, ports, socket } = place
  const file = join(directory, 'haproxy.cfg')
  // A LOCAL or UNKNOWN header leaves the ends of the connection in their place, so they are told of as they are.
  writeFileSync(
    file,
    `
global
  maxconn 500
defaults
  timeout connect 20s
  timeout client 60s
  timeout server 60s
frontend reader
  mode http
  bind 127.0.0.1:${ports.v4} accept-proxy
  bind [::1]:${ports.v6} accept-proxy
  bind 127.0.0.1:${ports.tls} accept-proxy ssl crt ${pem}
  bind unix@${socket} accept-proxy mode 666
  http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[dst]:%[dst_port] %[fc_src]:%[fc_src_port]"
${[...relays]
  .map(
    ([port, { to, isTls }]) => `listen relay-${port}
  mode tcp
  bind 127.0.0.1:${port} accept-proxy${isTls ? ` ssl crt ${pem}` : ''}
  server behind 127.0.0.1:${to}
`,
  )
  .join('')}`,
  )
  await run('haproxy', ['-db', '-f', file], place, ends)
  return { name: 'haproxy', ports, socket }
}

async function placeFor({ cert, key }: Leaf, ends: (() => unknown)[]): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-reader-'))
  chmodSync(directory, 0o755)
  ends.push(() => rmSync(directory, { recursive: true, force: true }))
  const pem = join(directory, 'server.pem')
  writeFileSync(pem, cert + key)
  const ports = { v4: await freePort(), v6: await freePort(), tls: await freePort() }
  return { directory, pem, ports, socket: join(directory, 'in.sock') }
}

/** Starts it and waits until it listens on every port. */
async function run(command: string, args: readonly string[], { ports, socket }: Place, ends: (() => unknown)[]) {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const closed = once(child, 'close')
  ends.push(async () => {
    child.kill('SIGKILL')
    await closed
  })
  for (const at of [{ port: ports.v4 }, { port: ports.v6, host: '::1' }, { port: ports.tls }, { path: socket }]) {
    while (!(await accepts(at))) {
      if (child.exitCode !== null) throw new Error(`${command} has ended: ${said}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

function accepts(at: { port: number; host?: string } | { path: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(at)
    client.once('connect', () => {
      client.destroy()
      resolve(true)
    })
    client.once('error', () => resolve(false))
  })
}
