import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import { socketMounts } from '../../../../operator/webhook/sockets.ts'
import { ambassador, asking, injected, planFor, refusalOf, sidecarOf } from '../../../helpers/injection.ts'

const DB = ambassador('db', { sockets: ['/run/db/main/db.sock'] })

const mountedAt = (...mounts: JsonObject[]): JsonObject => ({
  volumes: [
    { name: 'run', emptyDir: {} },
    { name: 'secret', secret: { secretName: 's' } },
  ],
  containers: [{ name: 'app', volumeMounts: mounts }],
})

describe('the socket of an upstream', () => {
  it('is found where a container mounts the volume that it is in, read-only', () => {
    const spec = mountedAt({ name: 'run', mountPath: '/run/db' })
    assert.deepEqual(socketMounts(spec, [DB]), {
      mounts: [{ mountPath: '/run/db', name: 'run', readOnly: true }],
      warnings: [],
    })
  })

  it('is found below the nearest mount, with its part of the volume, also of a native sidecar', () => {
    const spec: JsonObject = {
      ...mountedAt({ name: 'run', mountPath: '/run' }),
      initContainers: [
        { name: 'db', restartPolicy: 'Always', volumeMounts: [{ name: 'run', mountPath: '/run/db/', subPath: 'db' }] },
      ],
    }
    assert.deepEqual(socketMounts(spec, [DB]).mounts, [
      { mountPath: '/run/db/', name: 'run', readOnly: true, subPath: 'db' },
    ])
  })

  it('is mounted once for two Ambassadors', () => {
    const spec = mountedAt({ name: 'run', mountPath: '/run/db' })
    assert.equal(socketMounts(spec, [DB, ambassador('other', { sockets: ['/run/db/other.sock'] })]).mounts.length, 1)
  })

  for (const [what, mount] of [
    ['no volume is mounted there', { name: 'run', mountPath: '/run/dbx' }],
    ['the volume is a Secret', { name: 'secret', mountPath: '/run/db' }],
    ['the part of the volume is only known to the kubelet', { name: 'run', mountPath: '/run/db', subPathExpr: '$(A)' }],
  ] as const) {
    it(`is warned of when ${what}`, () => {
      const { mounts, warnings } = socketMounts(mountedAt(mount), [DB])
      assert.deepEqual(mounts, [])
      assert.deepEqual(warnings, [
        `Ambassador "db": no container of the pod mounts a volume that the socket '/run/db/main/db.sock' can be in, so the sidecar will not find it; mount an emptyDir at its directory`,
      ])
    })
  }

  it('is in the sidecar of an injected pod, which warns where it is not', () => {
    const world = { ambassadors: [DB] }
    const object = asking('db', mountedAt({ name: 'run', mountPath: '/run/db' }))
    const mounts = sidecarOf(injected(object, world))['volumeMounts'] as JsonObject[]
    assert.deepEqual(mounts.at(-1), { mountPath: '/run/db', name: 'run', readOnly: true })
    const planned = planFor(asking('db'), world)
    assert.match(String(planned.kind === 'plan' && planned.warnings), /mount an emptyDir at its directory$/)
  })
})

describe('a socket that an Ambassador listens on', () => {
  const ours = ambassador('payments', { listenSocket: '/run/payments/payments.sock' })
  const refusal = (spec: JsonObject, ambassadors = [ours]) =>
    refusalOf(asking(ambassadors.map(({ name }) => name).join(), spec), { ambassadors })

  it('cannot be that of another Ambassador too', () => {
    const other = ambassador('other', { port: 8082, listenSocket: '/run/payments/payments.sock' })
    assert.deepEqual(refusal({}, [ours, other]), {
      reason: 'SocketConflict',
      message:
        'ambassador.dev/inject: Ambassadors "payments" and "other" both listen on the socket "/run/payments/payments.sock"; change spec.listen.unix.path of one of them',
    })
  })

  it('cannot be where a container mounts a volume of its own', () => {
    for (const mountPath of ['/run/payments', '/run/payments/', '/run/payments/payments.sock']) {
      for (const list of ['containers', 'initContainers']) {
        const spec = {
          containers: [{ name: 'app' }],
          [list]: [{ name: 'web', volumeMounts: [{ name: 'v', mountPath }] }],
        }
        assert.deepEqual(refusal(spec), {
          reason: 'SocketConflict',
          message: `ambassador.dev/inject: Ambassador "payments" listens on the socket "/run/payments/payments.sock", and container "web" mounts a volume of its own at "${mountPath.replace(/\/$/, '')}"; change spec.listen.unix.path or that mount`,
        })
      }
    }
    const beside = {
      volumeMounts: [
        { name: 'v', mountPath: '/run/payments-data' },
        { name: 'w', mountPath: '/run' },
      ],
    }
    assert.equal(
      planFor(asking('payments', { containers: [{ name: 'app', ...beside }] }), { ambassadors: [ours] }).kind,
      'plan',
    )
  })

  it('may be the upstream of another, which needs no volume of the pod for it', () => {
    const chained = ambassador('chained', { port: 8082, sockets: ['/run/payments/payments.sock'] })
    const planned = planFor(asking('payments,chained'), { ambassadors: [ours, chained] })
    assert.ok(planned.kind === 'plan')
    assert.deepEqual(planned.warnings, [])
    const mounts = planned.container['volumeMounts'] as JsonObject[]
    assert.deepEqual(
      mounts.filter(({ mountPath }) => mountPath === '/run/payments').map(({ readOnly }) => readOnly),
      [undefined],
    )
  })
})
