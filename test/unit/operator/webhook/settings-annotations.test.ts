import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Annotation } from '../../../../common/names.ts'
import type { Json } from '../../../../operator/webhook/json.ts'
import { type PodSettings, podSettings } from '../../../../operator/webhook/settings-annotations.ts'
import { SETTINGS } from '../../../helpers/injection.ts'

const read = (annotations: Record<string, Json>): PodSettings => {
  const parsed = podSettings(annotations, SETTINGS)
  assert.equal(parsed.kind, 'settings', JSON.stringify(parsed))
  return parsed as PodSettings
}

const refuses = (annotations: Record<string, Json>, message: string, reason = 'InvalidSetting') => {
  assert.deepEqual(podSettings(annotations, SETTINGS), { kind: 'denial', reason, message })
}

describe('the per-pod settings', () => {
  it('are those of the installation when the pod says nothing', () => {
    assert.deepEqual(read({}), {
      kind: 'settings',
      image: SETTINGS.image,
      cpuRequest: undefined,
      cpuLimit: undefined,
      memoryRequest: undefined,
      memoryLimit: undefined,
      logLevel: 'info',
      nativeSidecar: 'auto',
      readiness: 'Listening',
      drainSeconds: undefined,
      adminPort: 14991,
      telemetryPort: 14990,
      warnings: [],
    })
  })

  it('are each taken from their annotation', () => {
    const settings = read({
      [Annotation.proxyImage]:
        'registry:5000/team/proxy:2@sha256:0123456789012345678901234567890123456789012345678901234567890123',
      [Annotation.proxyCpuRequest]: '0.05',
      [Annotation.proxyCpuLimit]: '1',
      [Annotation.proxyMemoryRequest]: '64Mi',
      [Annotation.proxyMemoryLimit]: '1024Mi',
      [Annotation.logLevel]: 'debug',
      [Annotation.nativeSidecar]: 'false',
      [Annotation.readiness]: 'UpstreamHealthy',
      [Annotation.drainSeconds]: '0',
      [Annotation.adminPort]: ' 15001 ',
      [Annotation.telemetryPort]: '15000',
    })
    assert.deepEqual(
      { ...settings, image: settings.image.slice(0, 26) },
      {
        kind: 'settings',
        image: 'registry:5000/team/proxy:2',
        cpuRequest: '50m',
        cpuLimit: '1',
        memoryRequest: '64Mi',
        memoryLimit: '1Gi',
        logLevel: 'debug',
        nativeSidecar: 'false',
        readiness: 'UpstreamHealthy',
        drainSeconds: 0,
        adminPort: 15001,
        telemetryPort: 15000,
        warnings: [],
      },
    )
  })

  it('refuse a word that is not allowed, with the allowed ones and the nearest', () => {
    refuses(
      { [Annotation.logLevel]: 'verbose' },
      'ambassador.dev/log-level: "verbose" is not one of debug, info, warn, error',
    )
    refuses(
      { [Annotation.logLevel]: 'warning' },
      'ambassador.dev/log-level: "warning" is not one of debug, info, warn, error',
    )
    refuses(
      { [Annotation.logLevel]: 'wrn' },
      'ambassador.dev/log-level: "wrn" is not one of debug, info, warn, error (did you mean "warn"?)',
    )
    refuses(
      { [Annotation.nativeSidecar]: 'yes' },
      'ambassador.dev/native-sidecar: "yes" is not one of auto, true, false',
    )
    refuses(
      { [Annotation.readiness]: 'listening' },
      'ambassador.dev/readiness: "listening" is not one of Listening, UpstreamHealthy (did you mean "Listening"?)',
    )
  })

  it('refuse numbers out of range and what is no number', () => {
    for (const value of ['-1', '3601', '5s', '1.5', '0x10', '']) {
      refuses(
        { [Annotation.drainSeconds]: value },
        `ambassador.dev/drain-seconds: "${value}" is not a whole number from 0 to 3600`,
      )
    }
    for (const key of [Annotation.adminPort, Annotation.telemetryPort]) {
      refuses({ [key]: '80' }, `${key}: "80" is not a whole number from 1024 to 65535`)
      refuses({ [key]: '65536' }, `${key}: "65536" is not a whole number from 1024 to 65535`)
    }
  })

  it('refuse quantities that are none, or zero', () => {
    for (const value of ['0', 'ten', '10 m', '-1', '1mm']) {
      refuses(
        { [Annotation.proxyCpuRequest]: value },
        `ambassador.dev/proxy-cpu-request: "${value}" is not a quantity of CPU; use a value such as 10m, 250m or 1`,
      )
    }
    refuses(
      { [Annotation.proxyMemoryLimit]: '4Mi' },
      'ambassador.dev/proxy-memory-limit: "4Mi" is not a quantity of memory of at least 8Mi; use a value such as 32Mi or 1Gi',
    )
  })

  it('know the m that was meant to be Mi', () => {
    refuses(
      { [Annotation.proxyMemoryLimit]: '64m' },
      'ambassador.dev/proxy-memory-limit: "64m" is thousandths of a byte; did you mean "64Mi"?',
    )
  })

  it('refuse a request above its limit', () => {
    refuses(
      { [Annotation.proxyCpuRequest]: '2', [Annotation.proxyCpuLimit]: '1500m' },
      'ambassador.dev/proxy-cpu-request: "2" is more than ambassador.dev/proxy-cpu-limit "1500m"; lower the request or raise the limit',
    )
    refuses(
      { [Annotation.proxyMemoryRequest]: '1Gi', [Annotation.proxyMemoryLimit]: '1000M' },
      'ambassador.dev/proxy-memory-request: "1Gi" is more than ambassador.dev/proxy-memory-limit "1G"; lower the request or raise the limit',
    )
  })

  it('take an image as container runtimes do', () => {
    const digest = 'sha256:0123456789012345678901234567890123456789012345678901234567890123'
    const images = [
      'proxy',
      'my_proxy:1',
      'my_org/proxy',
      'a__b/c',
      '[fd00::1]:5000/proxy:1',
      'Registry.local/proxy',
      `proxy@${digest}`,
    ]
    for (const value of images) assert.equal(read({ [Annotation.proxyImage]: value }).image, value)
  })

  it('refuse an image that is none', () => {
    for (const value of [
      '',
      'Proxy:1',
      'registry.local/',
      'a//b',
      '[fd00::1]',
      'registry.local/Team/proxy',
      'a b',
      'proxy:tag:tag',
      'https://example.com/proxy',
      '{{ .Values.image }}',
      'a\nb',
    ]) {
      refuses(
        { [Annotation.proxyImage]: value },
        `ambassador.dev/proxy-image: "${value.trim()}" is not an image; use a reference such as registry.example.com/ambassador-proxy:1.2.3`,
      )
    }
  })

  it('refuse one port for both', () => {
    refuses(
      { [Annotation.adminPort]: '14990' },
      'ambassador.dev/admin-port and ambassador.dev/telemetry-port: both are 14990; give one of them another port',
      'PortConflict',
    )
  })

  it('refuse a value that is no string', () => {
    refuses(
      { [Annotation.drainSeconds]: 5 },
      'ambassador.dev/drain-seconds: 5 is not a string; write it in quotes: "5"',
    )
    refuses({ [Annotation.logLevel]: ['debug'] }, 'ambassador.dev/log-level: ["debug"] is not a string')
  })

  it('warn of an annotation of ours that does not exist, with the nearest that does', () => {
    const { warnings } = read({
      'ambassador.dev/loglevel': 'debug',
      'ambassador.dev/xyzzy-plugh-frob': '1',
      'other.dev/x': '1',
      [Annotation.touched]: 'abc',
      [Annotation.status]: '{}',
    })
    assert.deepEqual(warnings, [
      'annotation "ambassador.dev/loglevel" is not known and does nothing, did you mean "ambassador.dev/log-level"?',
      'annotation "ambassador.dev/xyzzy-plugh-frob" is not known and does nothing',
    ])
  })
})
