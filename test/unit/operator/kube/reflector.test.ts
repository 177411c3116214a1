import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createClient } from '../../../../operator/kube/client.ts'
import type { KubeObject } from '../../../../operator/kube/objects.ts'
import { Reflector, type ReflectorOptions } from '../../../../operator/kube/reflector.ts'
import {
  answer,
  failure,
  page,
  reset,
  type ScriptedServer,
  type Step,
  scriptedServer,
  silence,
  watch,
} from '../../../helpers/api-server.ts'

interface Item {
  readonly name: string
  readonly color: string
}

function object(name: string, version: number, color = 'red'): KubeObject {
  return {
    metadata: { name, namespace: 'shop', uid: `uid-${name}`, resourceVersion: String(version), labels: { color } },
    spec: { large: 'x'.repeat(50) },
  }
}

const event = (type: string, item: KubeObject) => ({ type, object: item })
const bookmark = (version: number) => ({
  type: 'BOOKMARK',
  object: { metadata: { name: '', uid: '', resourceVersion: String(version) } },
})
const errorEvent = (code: number, reason: string) => ({
  type: 'ERROR',
  object: { kind: 'Status', code, reason, message: reason },
})

interface Setup extends AsyncDisposable {
  readonly server: ScriptedServer
  readonly reflector: Reflector<Item>
  readonly troubles: string[]
  readonly changes: string[]
  /** Resolves when the store holds exactly these, as `name:color`. */
  holds(...items: string[]): Promise<void>
}

async function setup(script: Step[], options: Partial<ReflectorOptions<Item>> = {}): Promise<Setup> {
  const server = await scriptedServer(...script)
  const troubles: string[] = []
  const changes: string[] = []
  let check = (): void => {}
  const client = createClient(server.connection)
  const reflector = new Reflector<Item>({
    name: 'things',
    client,
    path: '/api/v1/things',
    transform: ({ metadata }) =>
      metadata.labels?.['color'] === 'none'
        ? undefined
        : { name: metadata.name, color: metadata.labels?.['color'] ?? '' },
    indices: { byColor: (item) => [item.color] },
    backoff: { initialMs: 1, maxMs: 5 },
    onTrouble: (reason) => troubles.push(reason),
    onChange: ({ key, before, after }) => {
      changes.push(`${key} ${before?.color ?? '-'} -> ${after?.color ?? '-'}`)
      check()
    },
    ...options,
  })
  reflector.start()
  return {
    server,
    reflector,
    troubles,
    changes,
    holds: (...items) =>
      new Promise((resolve) => {
        check = () => {
          const now = [...reflector.store.values()].map((item) => `${item.name}:${item.color}`).sort()
          if (now.join() === [...items].sort().join()) resolve()
        }
        check()
      }),
    async [Symbol.asyncDispose]() {
      await reflector.stop()
      client.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

describe('reflector', { timeout: 20_000 }, () => {
  it('lists page by page, then watches from the version of the list', async () => {
    await using t = await setup([
      page([object('a', 1), object('b', 2)], '10', 'next'),
      page([object('c', 3, 'blue')], '10'),
      watch([event('ADDED', object('d', 11))], 'hang'),
    ])
    await t.reflector.synced()
    await t.holds('a:red', 'b:red', 'c:blue', 'd:red')
    const [first, second, third] = t.server.requests
    assert.equal(first?.query.get('limit'), '500')
    assert.equal(second?.query.get('continue'), 'next')
    assert.equal(third?.query.get('watch'), 'true')
    assert.equal(third?.query.get('allowWatchBookmarks'), 'true')
    assert.equal(third?.query.get('resourceVersion'), '10')
    const seconds = Number(third?.query.get('timeoutSeconds'))
    assert.ok(seconds >= 240 && seconds <= 300, `timeoutSeconds ${seconds}`)
    assert.deepEqual(t.reflector.store.byIndex('byColor', 'blue'), [{ name: 'c', color: 'blue' }])
  })

  it('is not synced before the last page is there', async () => {
    await using t = await setup([page([object('a', 1)], '10', 'next'), silence])
    await t.server.received(2)
    assert.equal(t.reflector.isSynced, false)
    assert.equal(t.reflector.store.size, 0)
  })

  it('asks for metadata alone when that is enough', async () => {
    await using t = await setup([page([], '1'), watch([], 'hang')], {
      metadataOnly: true,
      labelSelector: 'a!=b',
      fieldSelector: 'status.phase!=Failed',
    })
    await t.server.received(2)
    assert.deepEqual(
      t.server.requests.map((request) => request.headers.accept),
      [
        'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1',
        'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
      ],
    )
    for (const request of t.server.requests) {
      assert.equal(request.query.get('labelSelector'), 'a!=b')
      assert.equal(request.query.get('fieldSelector'), 'status.phase!=Failed')
    }
  })

  it('keeps the projection up to date and files it in its indices', async () => {
    await using t = await setup([
      page([object('a', 1), object('b', 2), object('hidden', 3, 'none')], '10'),
      watch(
        [
          event('MODIFIED', object('a', 11, 'blue')),
          event('DELETED', object('b', 12)),
          event('MODIFIED', object('hidden', 13, 'green')),
          event('MODIFIED', object('hidden', 14, 'none')),
          event('ADDED', object('last', 15)),
        ],
        'hang',
      ),
    ])
    await t.holds('a:blue', 'last:red')
    assert.deepEqual(t.changes, [
      'shop/a - -> red',
      'shop/b - -> red',
      'shop/a red -> blue',
      'shop/b red -> -',
      'shop/hidden - -> green',
      'shop/hidden green -> -',
      'shop/last - -> red',
    ])
    assert.deepEqual(t.reflector.store.byIndex('byColor', 'red'), [{ name: 'last', color: 'red' }])
  })

  it('tells nobody of a change that the projection does not show', async () => {
    await using t = await setup([
      page([object('a', 1)], '10'),
      watch([event('MODIFIED', object('a', 11)), event('ADDED', object('b', 12))], 'hang'),
    ])
    await t.holds('a:red', 'b:red')
    assert.deepEqual(t.changes, ['shop/a - -> red', 'shop/b - -> red'])
  })

  it('goes on from the last bookmark when the watch ends, without a list', async () => {
    await using t = await setup([
      page([], '10'),
      watch([bookmark(20), bookmark(30)], 'end'),
      watch([event('ADDED', object('a', 31))], 'hang'),
    ])
    await t.holds('a:red')
    assert.equal(t.server.requests[2]?.query.get('resourceVersion'), '30')
    assert.deepEqual(t.troubles, [])
  })

  it('lists again after 410 as an answer, and drops what is gone', async () => {
    await using t = await setup([
      page([object('a', 1), object('b', 2)], '10'),
      failure(410, 'Expired'),
      page([object('b', 2), object('c', 12)], '20'),
      watch([], 'hang'),
    ])
    await t.holds('b:red', 'c:red')
    assert.deepEqual(t.changes.slice(2), ['shop/a red -> -', 'shop/c - -> red'])
    assert.deepEqual(t.troubles, ['Expired'])
  })

  it('lists again after 410 as an event in the watch', async () => {
    await using t = await setup([
      page([object('a', 1)], '10'),
      watch([bookmark(15), errorEvent(410, 'Expired')], 'hang'),
      page([object('b', 12)], '20'),
      watch([], 'hang'),
    ])
    await t.holds('b:red')
    assert.equal(t.server.requests[2]?.query.has('watch'), false)
  })

  it('starts the list over when the continue token expires, and asks for it whole when it always does', async () => {
    const round = [page([object('a', 1)], '10', 'next'), failure(410, 'Expired')]
    await using t = await setup([
      ...round,
      ...round,
      ...round,
      page([object('a', 1), object('b', 2)], '20'),
      watch([], 'hang'),
    ])
    await t.holds('a:red', 'b:red')
    assert.equal(t.server.requests[6]?.query.has('limit'), false)
    assert.equal(t.server.requests[4]?.query.get('limit'), '500')
  })

  it('survives 500, 429, 403, 404, a reset and prose instead of JSON while it lists', async () => {
    await using t = await setup([
      failure(500, 'InternalError'),
      failure(403, 'Forbidden'),
      failure(404, 'NotFound'),
      reset, // a kept connection: sent again at once
      reset,
      failure(429, 'TooManyRequests'), // not processed: sent again at once
      (_request, response) => {
        response.end('<html>bad gateway</html>')
      },
      answer({ metadata: { resourceVersion: '1' }, items: 'none' }),
      page([object('a', 1)], '10'),
      watch([], 'hang'),
    ])
    await t.reflector.synced()
    assert.deepEqual(t.troubles, ['InternalError', 'Forbidden', 'NotFound', 'Unreachable', 'Malformed', 'Malformed'])
  })

  it('keeps what it knows while the collection answers 404, as when the definition is deleted', async () => {
    await using t = await setup([
      page([object('a', 1)], '10'),
      watch([errorEvent(410, 'Expired')], 'hang'),
      failure(404, 'NotFound'),
      failure(404, 'NotFound'),
      silence,
    ])
    await t.server.received(5)
    assert.equal(t.reflector.isSynced, true)
    assert.equal(t.reflector.store.size, 1)
  })

  it('waits as long as Retry-After says', async () => {
    await using t = await setup([
      page([], '10'),
      failure(503, 'ServiceUnavailable', { 'retry-after': '1' }),
      watch([event('ADDED', object('a', 11))], 'hang'),
    ])
    await t.server.received(2)
    const before = performance.now()
    await t.server.received(3)
    assert.ok(performance.now() - before > 900, 'came back before the second was over')
  })

  for (const [name, end] of [
    [
      'ends in the middle of a line',
      watch([event('ADDED', object('a', 11)), '{"type":"ADDED","object":{"meta'], 'end'),
    ],
    [
      'breaks in the middle of a line',
      watch([event('ADDED', object('a', 11)), '{"type":"ADDED","object":{"meta'], 'reset'),
    ],
    ['has a line that is not JSON', watch([event('ADDED', object('a', 11)), 'nonsense\n'], 'hang')],
    ['has a line that is JSON and no event', watch([event('ADDED', object('a', 11)), '42\n'], 'hang')],
    ['reports an internal error', watch([event('ADDED', object('a', 11)), errorEvent(500, 'InternalError')], 'hang')],
  ] as const) {
    it(`watches again from the last good event when the watch ${name}`, async () => {
      await using t = await setup([page([], '10'), end, watch([event('ADDED', object('b', 12))], 'hang')])
      await t.holds('a:red', 'b:red')
      assert.equal(t.server.requests[2]?.query.get('resourceVersion'), '11')
    })
  }

  it('takes a watch for dead that is silent for too long, and goes on without a list', async () => {
    await using t = await setup(
      [page([], '10'), watch([bookmark(11)], 'hang'), watch([event('ADDED', object('a', 12))], 'hang')],
      {
        idleMs: 50,
      },
    )
    await t.holds('a:red')
    assert.deepEqual(t.troubles.slice(0, 1), ['Idle'])
    assert.equal(t.server.requests[2]?.query.get('resourceVersion'), '11')
  })

  it('lists again when watch after watch fails at once', async () => {
    const empty = watch([], 'end')
    await using t = await setup([
      page([], '10'),
      empty,
      empty,
      empty,
      empty,
      empty,
      page([object('a', 11)], '20'),
      watch([], 'hang'),
    ])
    await t.holds('a:red')
    assert.deepEqual(t.troubles, ['Empty', 'Empty', 'Empty', 'Empty', 'Empty'])
  })

  it('does not lose the others when a listener throws', async () => {
    const seen: string[] = []
    await using t = await setup(
      [page([object('a', 1), object('b', 2)], '10'), watch([event('ADDED', object('c', 11))], 'hang')],
      {
        onChange: ({ key }) => {
          seen.push(key)
          if (key !== 'shop/c') throw new Error('a bug')
        },
      },
    )
    await t.server.received(2)
    while (!seen.includes('shop/c')) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(seen, ['shop/a', 'shop/b', 'shop/c'])
  })

  it('takes in the answer to an own write, and no older event afterwards', async () => {
    let deliver = (): void => {}
    const gate = new Promise<void>((resolve) => {
      deliver = resolve
    })
    await using t = await setup([
      page([object('a', 1)], '10'),
      async (_request, response) => {
        response.writeHead(200)
        response.flushHeaders()
        await gate
        response.write(`${JSON.stringify(event('MODIFIED', object('a', 11, 'old')))}\n`)
        response.write(`${JSON.stringify(event('ADDED', object('z', 13)))}\n`)
      },
    ])
    await t.reflector.synced()
    t.reflector.observe(object('a', 12, 'written'))
    t.reflector.observe(object('ghost', 12, 'written'))
    deliver()
    await t.holds('a:written', 'z:red')
  })

  it('tells how long the API server has been silent', async () => {
    await using t = await setup([page([], '10'), watch([], 'hang')])
    await t.reflector.synced()
    assert.ok(t.reflector.stalenessSeconds() < 5)
  })

  it('stops at once in the middle of a list, a watch and a back-off', async () => {
    for (const script of [[silence], [page([], '1'), watch([], 'hang')], [failure(500, 'InternalError')]]) {
      const t = await setup(script, { backoff: { initialMs: 60_000, maxMs: 60_000 } })
      await t.server.received(script.length)
      await t.reflector.stop()
      await t[Symbol.asyncDispose]()
    }
  })
})
