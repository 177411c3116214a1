/** The proxy as a process of its own before a real PostgreSQL whose connections clients share, for what only a process shows, such as memory. */
import { dump } from 'js-yaml'
import { freePort } from './ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER } from './postgres.ts'
import type { Ends } from './postgres-client.ts'
import { MountedFiles } from './postgres-proxy.ts'
import { ProxyProcess } from './proxy-process.ts'

/** Starts one; `ends` gets what ends it. @param limits of the upstream @param more of the block `postgres` beside pooling */
export async function postgresProcess(
  server: number,
  limits: object,
  more: object,
  ends: Ends,
): Promise<{ readonly port: number; readonly pid: number }> {
  const files = new MountedFiles()
  files.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  ends.push(() => files.remove())
  const port = await freePort()
  const password = { secretKeyRef: { name: 'db', key: 'password' } }
  const upstream = {
    name: 'primary',
    endpoints: [{ host: '127.0.0.1', port: server }],
    auth: { postgres: { username: POSTGRES_USER, password } },
    limits,
  }
  const spec = {
    protocol: 'PostgreSQL',
    listen: { port },
    upstreams: [upstream],
    postgres: { pooling: { mode: 'Transaction' }, ...more },
  }
  const resource = { apiVersion: 'ambassador.dev/v1alpha1', kind: 'Ambassador', metadata: { name: 'orders' }, spec }
  files.put('secrets', 'config', 'orders.yaml', dump(resource))
  const { secrets } = files.dirs
  const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
  const proxy = await ProxyProcess.start({}, [
    'cli/main.ts',
    'run',
    '-f',
    `${secrets}/config/orders.yaml`,
    '--secrets',
    secrets,
    ...own,
  ])
  ends.push(() => proxy.end())
  await proxy.ready()
  return { port, pid: proxy.child.pid! }
}
