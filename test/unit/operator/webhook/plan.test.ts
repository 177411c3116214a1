import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import type { InjectionPlan } from '../../../../operator/webhook/plan.ts'
import { ambassador, asking, injected, nodes, planFor, pod, refusalOf, type World } from '../../../helpers/injection.ts'

const PREFIX = 'ambassador.dev/inject: '

const refuses = (reason: string, message: string, object = asking('payments'), world: World = {}) => {
  assert.deepEqual(refusalOf(object, world), {
    reason,
    message: message.startsWith('ambassador.dev/') ? message : PREFIX + message,
  })
}

const warningsOf = (object = asking('payments'), world: World = {}): readonly string[] => {
  const planned = planFor(object, world)
  assert.equal(planned.kind, 'plan')
  return (planned as InjectionPlan).warnings
}

describe('plan: what is refused', () => {
  it('an Ambassador that does not exist, with the nearest that does', () => {
    refuses(
      'AmbassadorNotFound',
      'Ambassador "paymnts" does not exist in namespace "shop" (did you mean "payments"?); create it or correct the annotation',
      asking('paymnts'),
    )
    refuses(
      'AmbassadorNotFound',
      'Ambassador "cache" does not exist in namespace "shop"; create it or correct the annotation',
      asking('payments,cache'),
    )
  })

  it('an Ambassador that is being deleted', () => {
    refuses(
      'AmbassadorDeleting',
      'Ambassador "payments" is being deleted; create it again or correct the annotation',
      undefined,
      { ambassadors: [ambassador('payments', { isDeleting: true })] },
    )
  })

  it('an Ambassador that is not accepted and never was, with its reason', () => {
    refuses(
      'AmbassadorNotAccepted',
      'Ambassador "payments" is not accepted (Invalid: spec.protocol: no); correct the Ambassador',
      undefined,
      { ambassadors: [ambassador('payments', { config: null, refusal: 'Invalid: spec.protocol: no' })] },
    )
  })

  it('an Ambassador that is not published yet', () => {
    refuses(
      'ConfigNotReady',
      'Ambassador "payments" has no configuration yet; the operator publishes it within seconds, try again',
      undefined,
      { ambassadors: [ambassador('payments', { config: null })] },
    )
  })

  it('two Ambassadors with one port', () => {
    refuses(
      'PortConflict',
      'Ambassadors "payments" and "cache" both listen on port 8081; change spec.listen.port of one of them, for example to 8082',
      asking('payments,cache'),
      { ambassadors: [ambassador('payments'), ambassador('cache')] },
    )
  })

  it('a port that a container declares, with one that is free', () => {
    const containers = [{ name: 'app', ports: [{ containerPort: 8082 }, { containerPort: 8081 }] }]
    refuses(
      'PortConflict',
      `Ambassador "payments" listens on port 8081, which container "app" uses; change spec.listen.port, for example to 8083, or the container's port`,
      asking('payments', { containers }),
    )
  })

  it('a port that an init container declares', () => {
    const initContainers = [
      { name: 'helper', restartPolicy: 'Always', ports: [{ containerPort: 8081, protocol: 'TCP' }] },
    ]
    assert.match(refusalOf(asking('payments', { initContainers })).message, /which container "helper" uses/)
  })

  it("an Ambassador on one of the sidecar's own ports", () => {
    refuses(
      'PortConflict',
      `Ambassador "payments" listens on port 15000, which is the sidecar's telemetry port; set ambassador.dev/telemetry-port, for example to 15001`,
      asking('payments', {}, { 'ambassador.dev/telemetry-port': '15000' }),
      { ambassadors: [ambassador('payments', { port: 15000 })] },
    )
  })

  it("a container on one of the sidecar's own ports", () => {
    const port = (containerPort: number) => ({ containers: [{ name: 'app', ports: [{ containerPort }] }] })
    refuses(
      'PortConflict',
      `ambassador.dev/telemetry-port: container "app" uses port 14990, the sidecar's telemetry port; set the annotation to another port, for example 14992`,
      asking('payments', port(14990)),
    )
    refuses(
      'PortConflict',
      `ambassador.dev/admin-port: container "app" uses port 14991, the sidecar's admin port; set the annotation to another port, for example 14992`,
      asking('payments', port(14991)),
    )
  })

  it('hostNetwork', () => {
    refuses(
      'HostNetwork',
      "the pod has hostNetwork, so 127.0.0.1 is the node's and every process of the node could use its credentials; remove hostNetwork or the annotation",
      asking('payments', { hostNetwork: true }),
    )
  })

  it('a Windows pod, by its os, its node selector or its affinity', () => {
    const affinity = (values: string[]) => ({
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchExpressions: [{ key: 'kubernetes.io/os', operator: 'In', values }] }],
          },
        },
      },
    })
    const windows: JsonObject[] = [
      { os: { name: 'windows' } },
      { nodeSelector: { 'kubernetes.io/os': 'windows' } },
      { nodeSelector: { 'beta.kubernetes.io/os': 'windows' } },
      affinity(['windows']),
    ]
    for (const spec of windows) {
      refuses(
        'Windows',
        'the pod runs on Windows, where there is no sidecar; remove the annotation',
        asking('payments', spec),
      )
    }
    assert.equal(planFor(asking('payments', affinity(['linux', 'windows']))).kind, 'plan')
    assert.equal(planFor(asking('payments', { os: { name: 'linux' } })).kind, 'plan')
  })

  it("a user's own container named ambassador, wherever it stands", () => {
    const text = 'the pod has a container of its own named "ambassador", which is the name of the sidecar; rename it'
    refuses('NameConflict', text, asking('payments', { containers: [{ name: 'ambassador', image: 'mine' }] }))
    refuses('NameConflict', text, asking('payments', { initContainers: [{ name: 'ambassador', image: 'mine' }] }))
  })

  it('a container named ambassador that does not match the status annotation', () => {
    refuses(
      'NameConflict',
      'the pod has a container "ambassador" that does not match its annotation ambassador.dev/status; remove that container and that annotation',
      asking('payments', { containers: [{ name: 'ambassador' }] }, { 'ambassador.dev/status': '{}' }),
    )
  })

  it("a user's own volume with a name of ours", () => {
    refuses(
      'VolumeConflict',
      'the pod has a volume of its own named "ambassador-config-payments", which the sidecar needs; rename it',
      asking('payments', { volumes: [{ name: 'ambassador-config-payments', emptyDir: {} }] }),
    )
  })

  it('two Ambassadors that claim one hostname', () => {
    refuses(
      'HostnameConflict',
      'Ambassadors "payments" and "cache" both claim the hostname "redis"; take it out of spec.listen.hostnames of one of them',
      asking('payments,cache'),
      {
        ambassadors: [
          ambassador('payments', { hostnames: ['redis'] }),
          ambassador('cache', { port: 6379, hostnames: ['other', 'redis'] }),
        ],
      },
    )
  })

  it('a hostname that the pod maps elsewhere', () => {
    refuses(
      'HostnameConflict',
      `Ambassador "payments" claims the hostname "redis", which the pod's hostAliases map to 10.0.0.1; remove one of the two`,
      asking('payments', { hostAliases: [{ ip: '10.0.0.1', hostnames: ['x', 'Redis'] }] }),
      { ambassadors: [ambassador('payments', { hostnames: ['redis'] })] },
    )
  })

  it('a bad setting', () => {
    refuses(
      'InvalidSetting',
      'ambassador.dev/log-level: "loud" is not one of debug, info, warn, error',
      asking('payments', {}, { 'ambassador.dev/log-level': 'loud' }),
    )
  })

  it('a bad annotation before anything else is looked at', () => {
    refuses(
      'InvalidAnnotation',
      'item 1 of ",a" is empty; remove the comma too many',
      asking(',a', { hostNetwork: true }),
    )
  })
})

describe('plan: what is left alone', () => {
  it('a pod that opted out, whatever else it says', () => {
    assert.deepEqual(planFor(asking('false', { hostNetwork: true })), { kind: 'skip', reason: 'OptedOut' })
  })

  it('a pod without containers, which the API server refuses itself', () => {
    for (const containers of [[], null]) {
      assert.deepEqual(planFor(asking('payments', { containers })), { kind: 'skip', reason: 'NoContainers' })
    }
    assert.deepEqual(planFor({ metadata: { annotations: { 'ambassador.dev/inject': 'payments' } } }), {
      kind: 'skip',
      reason: 'NoContainers',
    })
  })

  it('a mirror pod', () => {
    assert.deepEqual(planFor(asking('payments', {}, { 'kubernetes.io/config.mirror': 'abc' })), {
      kind: 'skip',
      reason: 'MirrorPod',
    })
  })
})

describe('plan: what is allowed', () => {
  it('a UDP port, and a hostPort, with the number of an Ambassador', () => {
    const ports: JsonObject[] = [
      { containerPort: 8081, protocol: 'UDP' },
      { containerPort: 80, hostPort: 8081 },
    ]
    assert.equal(planFor(asking('payments', { containers: [{ name: 'app', ports }] })).kind, 'plan')
  })

  it('an Ambassador whose newest spec is refused, with its last good configuration and a warning', () => {
    assert.deepEqual(warningsOf(undefined, { ambassadors: [ambassador('payments', { refusal: 'Invalid: x' })] }), [
      'Ambassador "payments": its newest spec is not accepted, the last good configuration is used',
    ])
  })

  it('a hostname that the pod maps to loopback itself, which is not added again', () => {
    const object = asking('payments', { hostAliases: [{ ip: '127.0.0.1', hostnames: ['redis'] }] })
    const world = { ambassadors: [ambassador('payments', { hostnames: ['redis', 'cache'] })] }
    assert.deepEqual((injected(object, world)['spec'] as { hostAliases: unknown }).hostAliases, [
      { ip: '127.0.0.1', hostnames: ['redis', 'cache'] },
    ])
  })

  it('a volume of the pod that is the same as ours, which is used', () => {
    const volume = { name: 'ambassador-config-payments', configMap: { name: 'ambassador-payments', defaultMode: 292 } }
    const object = asking('payments', { volumes: [volume] })
    assert.deepEqual((injected(object)['spec'] as { volumes: unknown }).volumes, [volume])
  })
})

describe('plan: what a person is told', () => {
  it('how the sidecar of a Job ends where there are no native sidecars', () => {
    const old = { nodes: nodes({ kubeletVersion: 'v1.28.9' }) }
    assert.deepEqual(warningsOf(asking('payments', { restartPolicy: 'Never' }), old), [
      'without native sidecars the operator ends the sidecar of this pod when its other containers have ended; POST http://127.0.0.1:14991/quitquitquit does it without the operator',
    ])
    assert.deepEqual(warningsOf(asking('payments', { restartPolicy: 'Always' }), old), [])
    assert.deepEqual(warningsOf(asking('payments', { restartPolicy: 'Never' })), [])
  })

  it('that a drain is longer than the grace period', () => {
    const object = asking('payments', { terminationGracePeriodSeconds: 10 }, { 'ambassador.dev/drain-seconds': '20' })
    assert.deepEqual(warningsOf(object), [
      'ambassador.dev/drain-seconds: 20 is more than terminationGracePeriodSeconds 10, so the kubelet ends the sidecar first; raise the grace period',
    ])
  })

  it('that a shared process namespace shows the credentials', () => {
    assert.deepEqual(warningsOf(asking('payments', { shareProcessNamespace: true })), [
      'the processes of this pod can see each other, so they can read the files and credentials of the sidecar',
    ])
  })

  it('nothing for an ordinary pod', () => {
    assert.deepEqual(warningsOf(), [])
  })

  it('in words that API servers do not cut', () => {
    const long = 'a'.repeat(60)
    for (const warning of warningsOf(
      asking(long, { terminationGracePeriodSeconds: 1 }, { 'ambassador.dev/drain-seconds': '3600' }),
      {
        ambassadors: [ambassador(long, { refusal: 'Invalid: x' })],
      },
    )) {
      assert.ok(warning.length <= 256, warning)
    }
  })
})

describe('plan: keys that are dangerous in JavaScript', () => {
  it('are names like any other', () => {
    const annotations = JSON.parse('{"__proto__":"x","constructor":"y"}') as Record<string, string>
    const object = pod({ ...annotations, 'ambassador.dev/inject': 'constructor' })
    assert.equal(refusalOf(object).reason, 'AmbassadorNotFound')
  })
})
