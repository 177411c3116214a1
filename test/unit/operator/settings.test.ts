import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { readSettings } from '../../../operator/settings.ts'
import { DEFAULT_SETTINGS } from '../../../operator/webhook/settings.ts'

const IMAGE = { AMBASSADOR_PROXY_IMAGE: 'ambassador-proxy:1' }

/** The message with which an environment is refused. */
function refusal(env: Record<string, string>): string {
  try {
    readSettings({ ...IMAGE, ...env })
  } catch (error) {
    assert.equal((error as Error).name, 'SettingsError')
    return (error as Error).message
  }
  throw new Error('the environment was taken')
}

describe('settings', () => {
  it('have defaults for all but the image of the sidecar', () => {
    const settings = readSettings(IMAGE, 'host')
    assert.deepEqual(settings, {
      podName: 'host',
      namespace: undefined,
      logLevel: 'info',
      webhookPort: 9443,
      httpPort: 8080,
      secretChecks: [],
      replicas: undefined,
      shutdownDelayMs: 5000,
      injector: {
        ...DEFAULT_SETTINGS,
        resources: { ...DEFAULT_SETTINGS.resources, memoryLimit: null },
        image: 'ambassador-proxy:1',
      },
    })
    assert.throws(() => readSettings({}), {
      message: 'AMBASSADOR_PROXY_IMAGE: is not set, set it to the image of the sidecar',
    })
  })

  it('take what is set, and the default for what is empty', () => {
    const settings = readSettings({
      ...IMAGE,
      POD_NAME: 'op-0',
      POD_NAMESPACE: 'sys',
      AMBASSADOR_LOG_LEVEL: '',
      AMBASSADOR_SECRET_CHECKS: ' shop, bank ,',
      AMBASSADOR_REPLICAS: '3',
      AMBASSADOR_SHUTDOWN_DELAY_SECONDS: '0',
      AMBASSADOR_PROXY_CPU_LIMIT: '500m',
      AMBASSADOR_PROXY_RUN_AS_USER: 'none',
      AMBASSADOR_PROXY_READINESS: 'UpstreamHealthy',
      AMBASSADOR_EXCLUDED_NAMESPACES: 'legacy',
    })
    assert.deepEqual(
      [
        settings.podName,
        settings.namespace,
        settings.logLevel,
        settings.secretChecks,
        settings.replicas,
        settings.shutdownDelayMs,
      ],
      ['op-0', 'sys', 'info', ['shop', 'bank'], 3, 0],
    )
    const { resources, runAsUser, readiness, excludedNamespaces } = settings.injector
    assert.deepEqual(
      [resources.cpuLimit, runAsUser, readiness, excludedNamespaces],
      ['500m', null, 'UpstreamHealthy', ['legacy']],
    )
  })

  for (const [name, value, message] of [
    ['AMBASSADOR_LOG_LEVEL', 'loud', "'loud' cannot be used, use debug, info, warn, error"],
    ['AMBASSADOR_WEBHOOK_PORT', '70000', "'70000' cannot be used, use a whole number from 0 to 65535"],
    ['AMBASSADOR_HTTP_PORT', 'http', "'http' cannot be used, use a whole number from 0 to 65535"],
    ['AMBASSADOR_SECRET_CHECKS', 'Shop', "'Shop' cannot be used, use names of namespaces, separated by commas"],
    ['AMBASSADOR_REPLICAS', '-1', "'-1' cannot be used, use a whole number from 0 to 100"],
    ['AMBASSADOR_SHUTDOWN_DELAY_SECONDS', '61', "'61' cannot be used, use a whole number from 0 to 60"],
    ['AMBASSADOR_PROXY_IMAGE_PULL_POLICY', 'Sometimes', "'Sometimes' cannot be used, use Always, IfNotPresent, Never"],
    ['AMBASSADOR_PROXY_CPU_REQUEST', '10x', "'10x' cannot be used, use a quantity such as 10m"],
    ['AMBASSADOR_PROXY_MEMORY_LIMIT', 'much', "'much' cannot be used, use a quantity such as 64Mi"],
    ['AMBASSADOR_PROXY_RUN_AS_USER', '0', "'0' cannot be used, use a whole number from 1 to 2147483647"],
    ['AMBASSADOR_PROXY_NATIVE_SIDECAR', 'yes', "'yes' cannot be used, use auto, true, false"],
    ['AMBASSADOR_PROXY_DRAIN_SECONDS', '1.5', "'1.5' cannot be used, use a whole number from 0 to 3600"],
  ] as const) {
    it(`refuse ${name}=${value} with the remedy`, () => assert.equal(refusal({ [name]: value }), `${name}: ${message}`))
  }

  it('know every variable that the chart sets', () => {
    const chart = readFileSync(join(import.meta.dirname, '../../../charts/ambassador/templates/_env.tpl'), 'utf8')
    const source = readFileSync(join(import.meta.dirname, '../../../operator/settings.ts'), 'utf8')
    const names = [...chart.matchAll(/"(AMBASSADOR_[A-Z_]+)"/g)].map((match) => match[1]!)
    assert.ok(names.length > 10)
    assert.deepEqual(
      names.filter((name) => !source.includes(`'${name}'`)),
      [],
    )
  })
})
