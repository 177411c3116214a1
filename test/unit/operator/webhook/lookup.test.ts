import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { InjectableAmbassador } from '../../../../operator/webhook/ambassador.ts'
import { injectable } from '../../../../operator/webhook/ambassador.ts'
import { type AmbassadorSource, Lookup } from '../../../../operator/webhook/lookup.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'
import { ambassador } from '../../../helpers/injection.ts'

/** A cache and an API server that know what they are told, and count. */
function source(cache: Record<string, InjectableAmbassador>, live: Record<string, InjectableAmbassador> = cache) {
  const asked: string[] = []
  const made = {
    cache,
    live,
    asked,
    gate: Promise.resolve() as Promise<unknown>,
    cached: (namespace: string, name: string) => cache[`${namespace}/${name}`],
    names: () => Object.values(cache).map((each) => each.name),
    async fetch(namespace: string, name: string, signal: AbortSignal) {
      asked.push(name)
      await Promise.race([
        made.gate,
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted')))),
      ])
      return live[`${namespace}/${name}`]
    },
  }
  return made satisfies AmbassadorSource
}

const setUp = (...args: Parameters<typeof source>) => {
  const clock = new FakeClock()
  const world = source(...args)
  const lookup = new Lookup(world, clock)
  const find = (names: string[], options: { ms?: number; waitForConfig?: boolean } = {}) =>
    lookup.find('shop', names, {
      deadline: clock.now() + (options.ms ?? 4500),
      waitForConfig: options.waitForConfig ?? true,
    })
  return { clock, world, lookup, find }
}

describe('looking Ambassadors up', () => {
  it('answers from the cache at once, without asking anybody', () => {
    const payments = ambassador('payments')
    const { lookup, world } = setUp({ 'shop/payments': payments })
    assert.equal(lookup.known('shop', ['payments'])?.get('payments'), payments)
    assert.equal(lookup.known('shop', ['payments', 'cache']), undefined)
    assert.equal(lookup.known('other', ['payments']), undefined)
    assert.deepEqual(world.asked, [])
  })

  it('asks the API server for what the cache does not know', async () => {
    const { find, world } = setUp({}, { 'shop/payments': ambassador('payments') })
    assert.equal((await find(['payments'])).get('payments')?.name, 'payments')
    assert.deepEqual(world.asked, ['payments'])
  })

  it('asks once for a burst of pods, and believes "does not exist" for a second', async () => {
    const { find, world, clock } = setUp({})
    const answers = await Promise.all(Array.from({ length: 50 }, () => find(['paymnts'])))
    assert.ok(answers.every((answer) => answer.get('paymnts') === undefined))
    await find(['paymnts'])
    assert.deepEqual(world.asked, ['paymnts'])
    await clock.advance(1000)
    await find(['paymnts'])
    assert.equal(world.asked.length, 2)
  })

  it('takes what came into the cache meanwhile, whatever was believed', async () => {
    const { find, world } = setUp({})
    await find(['payments'])
    world.cache['shop/payments'] = ambassador('payments')
    assert.notEqual((await find(['payments'])).get('payments'), undefined)
  })

  it('waits for a config that is being published', async () => {
    const unpublished = ambassador('payments', { config: null })
    const { find, world, clock } = setUp({ 'shop/payments': unpublished })
    const answer = find(['payments'])
    await clock.advance(300)
    world.cache['shop/payments'] = ambassador('payments')
    await clock.advance(50)
    assert.equal((await answer).get('payments')?.config?.hash, '0123456789abcdef')
    assert.deepEqual(world.asked, ['payments'])
  })

  it('waits a second for it and no longer, and not beyond the deadline', async () => {
    for (const [ms, expected] of [
      [4500, 950],
      [200, 150],
    ] as const) {
      const { find, clock } = setUp({ 'shop/payments': ambassador('payments', { config: null }) })
      const started = clock.now()
      let took = 0
      const answer = find(['payments'], { ms }).then((found) => {
        took = clock.now() - started
        return found
      })
      await clock.advance(2000)
      assert.equal((await answer).get('payments')?.config, null)
      assert.equal(took, expected)
      assert.equal(clock.timers, 0)
    }
  })

  it('does not wait for a config when nobody needs it', async () => {
    const { find } = setUp({ 'shop/payments': ambassador('payments', { config: null }) })
    assert.equal((await find(['payments'], { waitForConfig: false })).get('payments')?.config, null)
  })

  it('does not wait for one that is refused or being deleted', () => {
    const world = {
      'shop/refused': ambassador('refused', { config: null, refusal: 'Invalid: x' }),
      'shop/deleting': ambassador('deleting', { config: null, isDeleting: true }),
    }
    assert.equal(setUp(world).lookup.known('shop', ['refused', 'deleting'])?.size, 2)
  })

  it('ends a question that is not answered in time', async () => {
    const { find, world, clock } = setUp({}, {})
    world.gate = new Promise(() => {})
    const failure = assert.rejects(find(['payments']), { message: 'aborted' })
    await settle()
    await clock.advance(1000)
    await failure
    assert.equal(clock.timers, 0)
  })

  it('does not remember as absent what could not be asked', async () => {
    const { find, world } = setUp({}, { 'shop/payments': ambassador('payments') })
    world.gate = Promise.reject(new Error('unreachable'))
    await assert.rejects(find(['payments']), { message: 'unreachable' })
    world.gate = Promise.resolve()
    assert.notEqual((await find(['payments'])).get('payments'), undefined)
  })

  it('does not grow with names that do not exist', async () => {
    const { find } = setUp({})
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 5000; i++) await find([`name-${i}`])
    assert.ok(process.memoryUsage().heapUsed - before < 50e6)
  })
})

describe('the projection of an Ambassador', () => {
  const spec = {
    protocol: 'HTTP' as const,
    listen: { port: 8081, hostnames: ['pay'] },
    upstreams: [
      {
        name: 'live',
        endpoints: [{ host: 'a', port: 443 }],
        tls: { ca: { configMapKeyRef: { name: 'ca', key: 'x' } }, clientCertificate: { secretName: 'client' } },
        auth: { bearer: { secretKeyRef: { name: 'token', key: 't' } } },
      },
    ],
  }
  const base = { apiVersion: 'ambassador.dev/v1alpha1', kind: 'Ambassador', metadata: { name: 'payments' }, spec }

  it('has what a pod needs of it', () => {
    const status = {
      config: { hash: 'abc', configMapName: 'ambassador-payments', generation: 3 },
      conditions: [
        { type: 'Accepted', status: 'True' as const, reason: 'Accepted', message: '', lastTransitionTime: '' },
      ],
    }
    assert.deepEqual(injectable({ ...base, status }), {
      name: 'payments',
      port: 8081,
      hostnames: ['pay'],
      env: [],
      secrets: ['client', 'token'],
      configMaps: ['ca'],
      tokens: [],
      sockets: [],
      listenSocket: null,
      config: { name: 'ambassador-payments', hash: 'abc' },
      refusal: null,
      isDeleting: false,
    })
  })

  it('knows one that nobody has looked at yet', () => {
    const known = injectable({ ...base, metadata: { name: 'payments', deletionTimestamp: '2026-01-01T00:00:00Z' } })
    assert.deepEqual([known.config, known.refusal, known.isDeleting], [null, null, true])
  })

  it('tells why one is not accepted', () => {
    const conditions = [
      { type: 'Accepted', status: 'False' as const, reason: 'Invalid', message: 'spec.x: no', lastTransitionTime: '' },
    ]
    assert.equal(injectable({ ...base, status: { conditions } }).refusal, 'Invalid: spec.x: no')
  })
})
