/** The sidecar as its image runs it: the bundle, with everything on that a production Ambassador has. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bundle } from '../../../build/bundle.ts'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { buildDirectory } from '../../../build/machine/cache.ts'
import { Env, PRODUCT_VERSION } from '../../../common/names.ts'
import { configHash, type ProxyConfig } from '../../../common/proxy-config.ts'
import { type Contender, type Setting, upstreamConnections } from '../contender.ts'
import { freePort, start } from '../process.ts'

const ROOT = join(import.meta.dirname, '../../..')
const DIST = buildDirectory('bench', 'dist')

export const ours: Contender = {
  name: 'ambassador',
  features: 'retry with budget, breaker, limits, request id, metrics, log of errors',
  prepare: async () => {
    // Always anew: a bundle of yesterday would measure yesterday's code.
    mkdirSync(DIST, { recursive: true })
    await bundle({ root: ROOT, dist: DIST, isCompiled: true })
    return `${PRODUCT_VERSION}, Node ${process.version}`
  },
  start: async (setting) => {
    // Mounted as a pod has it.
    mkdirSync(join(setting.directory, 'config', 'bench'), { recursive: true })
    writeFileSync(join(setting.directory, 'config', 'bench', 'config.json'), JSON.stringify(configFor(setting)))
    const { flags, env } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
    const [telemetry, admin] = [await freePort(), await freePort()]
    return start(setting.core, process.execPath, [...flags, join(DIST, 'proxy.mjs')], {
      port: setting.port,
      env: {
        ...env,
        [Env.ambassadors]: 'bench',
        [Env.configDir]: join(setting.directory, 'config'),
        [Env.podNamespace]: 'bench',
        AMBASSADOR_TELEMETRY_PORT: String(telemetry),
        AMBASSADOR_ADMIN_PORT: String(admin),
      },
    })
  },
}

const configFor = ({ mode, upstream, port }: Setting): ProxyConfig => {
  const { tls } = upstream
  const config: Omit<ProxyConfig, 'hash'> = {
    version: 1,
    ambassador: { namespace: 'bench', name: 'bench', generation: 1 },
    protocol: mode,
    listener: { port },
    clusters: [
      {
        name: 'upstream',
        discovery: {
          kind: 'endpoints',
          endpoints: [{ host: '127.0.0.1', port: upstream.port, weight: 1, priority: 0 }],
        },
        tls:
          tls === null
            ? null
            : {
                serverName: tls.serverName,
                ca: { kind: 'file', path: tls.caFile },
                clientCertificate: null,
                minVersion: 'TLSv1.2',
              },
        auth: null,
        circuitBreaker: {
          consecutiveFailures: 5,
          failureRate: { ratio: 0.5, minimumRequests: 20, windowMs: 10_000 },
          openMs: 30_000,
          maxOpenMs: 300_000,
          halfOpenRequests: 1,
        },
        limits: { maxConnections: upstreamConnections(mode), maxPendingRequests: 50, maxConcurrentRetries: 3 },
      },
    ],
    routes: [],
    retry:
      mode !== 'HTTP'
        ? null
        : {
            maxRetries: 3,
            on: ['ConnectFailure', 'Reset', 'Timeout'],
            statuses: [429, 502, 503, 504],
            perTryTimeoutMs: 5_000,
            backoff: { initialMs: 100, maxMs: 10_000 },
            budget: { ratio: 0.2, minPerSecond: 10 },
            maxBufferedBodyBytes: 65_536,
            methods: 'Idempotent',
          },
    timeouts: { connectMs: 5_000, requestMs: mode !== 'HTTP' ? null : 10_000, idleMs: 60_000 },
    // Present and never reached, so that its cost is counted.
    rateLimit: { requests: 10_000_000, perMs: 1_000, burst: 10_000_000, onLimit: 'Reject', maxDelayMs: 0 },
    accessLog: { mode: 'Errors', sample: 0 },
  }
  return { ...config, hash: configHash(config) }
}
