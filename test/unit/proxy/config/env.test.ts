import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Environment, readSettings } from '../../../../proxy/config/env.ts'

const PLAIN = { UPSTREAM_HOST: 'api.example.com', UPSTREAM_PORT: '443' }
const POD = { AMBASSADOR_NAMES: 'payments,orders-db' }

/** The config of a plain container with these variables. */
function plain(env: Environment = {}) {
  const { source } = readSettings({ ...PLAIN, ...env })
  assert.equal(source.kind, 'fixed')
  return (source as Extract<typeof source, { kind: 'fixed' }>).config
}

describe('settings of a plain container', () => {
  it('needs a host and a port, and nothing else', () => {
    const config = plain()
    assert.equal(config.protocol, 'HTTP')
    assert.equal(config.listener.port, 8080)
    assert.equal(config.retry?.maxRetries, 2)
    const [cluster] = config.clusters
    assert.equal(cluster?.tls, null)
    assert.equal(cluster?.circuitBreaker, null)
    assert.deepEqual(cluster?.discovery, {
      kind: 'endpoints',
      endpoints: [{ host: 'api.example.com', port: 443, weight: 1, priority: 0 }],
    })
  })

  it('takes each variable', () => {
    const config = plain({
      LISTEN_PORT: '8081',
      RETRY_MAX: '5',
      CIRCUIT_BREAKER_THRESHOLD: '7',
      TLS_ENABLED: 'true',
      AMBASSADOR_CA_FILE: '/ca.pem',
    })
    assert.equal(config.listener.port, 8081)
    assert.equal(config.retry?.maxRetries, 5)
    const [cluster] = config.clusters
    assert.equal(cluster?.circuitBreaker?.consecutiveFailures, 7)
    assert.deepEqual(cluster?.tls?.ca, { kind: 'file', path: '/ca.pem' })
    assert.equal(plain({ PROTOCOL: 'TCP' }).protocol, 'TCP')
    assert.equal(plain({ PROTOCOL: 'tcp' }).retry, null)
    assert.equal(plain({ RETRY_MAX: '0' }).retry?.maxRetries, 0)
  })

  it('verifies TLS against the system roots when no CA is given', () => {
    assert.deepEqual(plain({ TLS_ENABLED: '1' }).clusters[0]?.tls, {
      serverName: null,
      ca: null,
      clientCertificate: null,
      minVersion: 'TLSv1.2',
    })
    for (const off of ['false', '0', 'False', '']) assert.equal(plain({ TLS_ENABLED: off }).clusters[0]?.tls, null)
  })

  it('takes an empty variable for one that is not set, as Compose passes it', () => {
    assert.deepEqual(plain({ LISTEN_PORT: '', RETRY_MAX: '', PROTOCOL: '', AMBASSADOR_CONFIG: '' }), plain())
  })

  it('takes addresses, with or without brackets', () => {
    for (const [given, host] of [
      ['10.0.0.7', '10.0.0.7'],
      ['::1', '::1'],
      ['[2001:db8::7]', '2001:db8::7'],
      ['my_service', 'my_service'],
      ['db.example.com.', 'db.example.com.'],
    ] as const) {
      const { discovery } = plain({ UPSTREAM_HOST: given }).clusters[0]!
      assert.equal(discovery.kind === 'endpoints' && discovery.endpoints[0]?.host, host)
    }
  })

  it('is stopped as a container is: with everything at once, and 10 seconds before it is killed', () => {
    const settings = readSettings(PLAIN)
    assert.equal(settings.sidecarMode, 'Legacy')
    assert.equal(settings.drainMs, 8000)
    assert.equal(settings.podName, null)
  })
})

describe('settings of a pod', () => {
  it('has the mount paths and ports that the webhook relies on', () => {
    assert.deepEqual(readSettings(POD), {
      source: { kind: 'mounted', names: ['payments', 'orders-db'], directory: '/etc/ambassador/config' },
      secretsDir: '/etc/ambassador/secrets',
      configMapsDir: '/etc/ambassador/configmaps',
      tokensDir: '/etc/ambassador/tokens',
      telemetryPort: 14990,
      adminPort: 14991,
      logLevel: 'info',
      readiness: 'Listening',
      drainMs: 25_000,
      sidecarMode: 'Legacy',
      endedFile: null,
      maxClients: null,
      podName: null,
      zone: null,
      podNamespace: '',
    })
  })

  it('takes each variable', () => {
    const settings = readSettings({
      AMBASSADOR_NAMES: 'payments',
      AMBASSADOR_CONFIG_DIR: '/c',
      AMBASSADOR_SECRETS_DIR: '/s',
      AMBASSADOR_CONFIGMAPS_DIR: '/m',
      AMBASSADOR_TOKENS_DIR: '/t',
      AMBASSADOR_TELEMETRY_PORT: '1',
      AMBASSADOR_ADMIN_PORT: '2',
      AMBASSADOR_LOG_LEVEL: 'debug',
      AMBASSADOR_READINESS: 'UpstreamHealthy',
      AMBASSADOR_DRAIN_SECONDS: '3',
      AMBASSADOR_SIDECAR_MODE: 'Native',
      AMBASSADOR_ENDED_FILE: '/pod/ended',
      AMBASSADOR_ZONE: 'west',
      AMBASSADOR_MAX_CLIENT_CONNECTIONS: '500',
      POD_NAME: 'p',
      POD_NAMESPACE: 'n',
    })
    assert.deepEqual(settings, {
      source: { kind: 'mounted', names: ['payments'], directory: '/c' },
      secretsDir: '/s',
      configMapsDir: '/m',
      tokensDir: '/t',
      telemetryPort: 1,
      adminPort: 2,
      logLevel: 'debug',
      readiness: 'UpstreamHealthy',
      drainMs: 3000,
      sidecarMode: 'Native',
      endedFile: '/pod/ended',
      maxClients: 500,
      podName: 'p',
      zone: 'west',
      podNamespace: 'n',
    })
  })
})

describe('a variable that cannot be used', () => {
  const cases: readonly (readonly [Environment, string])[] = [
    [{}, 'UPSTREAM_HOST: is not set, set it and UPSTREAM_PORT, or AMBASSADOR_CONFIG, or AMBASSADOR_NAMES'],
    [{ UPSTREAM_HOST: 'a' }, 'UPSTREAM_PORT: is not set, use a port from 1 to 65535'],
    [{ ...PLAIN, UPSTREAM_PORT: '70000' }, "UPSTREAM_PORT: '70000' is not allowed, use a whole number from 1 to 65535"],
    [{ ...PLAIN, UPSTREAM_PORT: '0' }, "UPSTREAM_PORT: '0' is not allowed, use a whole number from 1 to 65535"],
    [{ ...PLAIN, UPSTREAM_PORT: 'http' }, "UPSTREAM_PORT: 'http' is not allowed, use a whole number from 1 to 65535"],
    [{ ...PLAIN, LISTEN_PORT: '80.5' }, "LISTEN_PORT: '80.5' is not allowed, use a whole number from 1 to 65535"],
    [
      { ...PLAIN, LISTEN_PORT: '14990' },
      "LISTEN_PORT: '14990' is the port of AMBASSADOR_TELEMETRY_PORT as well, use another one",
    ],
    [{ ...PLAIN, RETRY_MAX: '-1' }, "RETRY_MAX: '-1' is not allowed, use a whole number from 0 to 10"],
    [{ ...PLAIN, RETRY_MAX: '11' }, "RETRY_MAX: '11' is not allowed, use a whole number from 0 to 10"],
    [{ ...PLAIN, RETRY_MAX: '3', PROTOCOL: 'TCP' }, "RETRY_MAX: '3' has no meaning with PROTOCOL=TCP, remove it"],
    [
      { ...PLAIN, CIRCUIT_BREAKER_THRESHOLD: '0' },
      "CIRCUIT_BREAKER_THRESHOLD: '0' is not allowed, use a whole number from 1 to 1000",
    ],
    [{ ...PLAIN, TLS_ENABLED: 'yes' }, "TLS_ENABLED: 'yes' is not allowed, use true, false, 1 or 0"],
    [{ ...PLAIN, PROTOCOL: 'gRPC' }, "PROTOCOL: 'gRPC' is not allowed, use HTTP or TCP"],
    [
      { ...PLAIN, AMBASSADOR_CA_FILE: '/ca.pem' },
      "AMBASSADOR_CA_FILE: '/ca.pem' needs TLS_ENABLED=true, set it or remove the file",
    ],
    [
      { ...PLAIN, UPSTREAM_HOST: 'https://api.example.com' },
      "UPSTREAM_HOST: 'https://api.example.com' is a URL, use the host alone (and TLS_ENABLED=true for https)",
    ],
    [
      { ...PLAIN, UPSTREAM_HOST: 'api.example.com:443' },
      "UPSTREAM_HOST: 'api.example.com:443' has a port, put that into UPSTREAM_PORT",
    ],
    [
      { ...PLAIN, UPSTREAM_HOST: 'a b' },
      "UPSTREAM_HOST: 'a b' is not a host, use a name such as api.example.com or an IP address",
    ],
    [
      { ...PLAIN, AMBASSADOR_LOG_LEVEL: 'trace' },
      "AMBASSADOR_LOG_LEVEL: 'trace' is not allowed, use debug, info, warn or error",
    ],
    [
      { ...PLAIN, AMBASSADOR_READINESS: 'Ready' },
      "AMBASSADOR_READINESS: 'Ready' is not allowed, use Listening or UpstreamHealthy",
    ],
    [
      { ...PLAIN, AMBASSADOR_DRAIN_SECONDS: '10s' },
      "AMBASSADOR_DRAIN_SECONDS: '10s' is not allowed, use a whole number from 0 to 3600",
    ],
    [
      { ...PLAIN, AMBASSADOR_SIDECAR_MODE: 'native' },
      "AMBASSADOR_SIDECAR_MODE: 'native' is not allowed, use Native or Legacy",
    ],
    [
      { ...PLAIN, AMBASSADOR_ADMIN_PORT: '14990' },
      "AMBASSADOR_ADMIN_PORT: '14990' is the telemetry port as well, use another one",
    ],
    [{ AMBASSADOR_NAMES: 'a,,b' }, "AMBASSADOR_NAMES: 'a,,b' has an empty name, remove it"],
    [{ AMBASSADOR_NAMES: 'a,b,a' }, "AMBASSADOR_NAMES: 'a,b,a' names 'a' twice, remove one"],
    [{ ...POD, ...PLAIN }, 'UPSTREAM_HOST: cannot be used with AMBASSADOR_NAMES, remove one of the two'],
    [
      { ...POD, AMBASSADOR_CONFIG: '/x' },
      'AMBASSADOR_CONFIG: cannot be used with AMBASSADOR_NAMES, remove one of the two',
    ],
    [
      { AMBASSADOR_CONFIG: '/x', RETRY_MAX: '3' },
      'RETRY_MAX: cannot be used with AMBASSADOR_CONFIG, remove one of the two',
    ],
  ]
  for (const [env, message] of cases) {
    it(message, () => assert.throws(() => readSettings(env), { name: 'SettingsError', message }))
  }
})
