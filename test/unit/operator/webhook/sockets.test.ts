import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import { socketMounts } from '../../../../operator/webhook/sockets.ts'
import { ambassador, asking, injected, planFor, sidecarOf } from '../../../helpers/injection.ts'

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
