import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { KubeClient, KubeRequest } from '../../../../operator/kube/client.ts'
import { EventRecorder, type EventRecorderOptions, type KubeEvent } from '../../../../operator/kube/events.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'

const regarding = {
  apiVersion: 'ambassador.dev/v1alpha1',
  kind: 'Ambassador',
  namespace: 'shop',
  name: 'payments',
  uid: 'u1',
}

function warning(message: string): KubeEvent {
  return { type: 'Warning', reason: 'NameTaken', action: 'Publish', message }
}

function setup(options: Partial<EventRecorderOptions> = {}) {
  const clock = new FakeClock()
  const requests: KubeRequest[] = []
  const results: string[] = []
  let respond = async (request: KubeRequest): Promise<unknown> => request.body
  const client: KubeClient = {
    request: <T>(request: KubeRequest) => {
      requests.push(request)
      return respond(request) as Promise<T>
    },
    open: () => Promise.reject(new Error('not a watch')),
    close() {},
  }
  const recorder = new EventRecorder({
    client,
    instance: 'op-0',
    clock,
    observe: (result) => results.push(result),
    ...options,
  })
  return {
    clock,
    requests,
    results,
    recorder,
    answer: (how: typeof respond) => {
      respond = how
    },
  }
}

describe('event recorder', () => {
  it('writes an event of events.k8s.io/v1 with everything that the API demands', async () => {
    const t = setup()
    t.recorder.record(regarding, warning('ConfigMap taken'))
    await t.recorder.settled()
    const [request] = t.requests
    assert.equal(request?.path, '/apis/events.k8s.io/v1/namespaces/shop/events')
    const body = request?.body as Record<string, unknown>
    assert.match((body['metadata'] as { name: string }).name, /^payments\.[0-9a-f]+$/)
    assert.equal(body['eventTime'], '2026-01-01T00:00:00.000000Z')
    assert.deepEqual(
      [
        body['reason'],
        body['action'],
        body['type'],
        body['note'],
        body['reportingController'],
        body['reportingInstance'],
      ],
      ['NameTaken', 'Publish', 'Warning', 'ConfigMap taken', 'ambassador-operator', 'op-0'],
    )
    assert.deepEqual(body['regarding'], regarding)
  })

  it('counts a repeated event instead of writing it again, at most once a minute', async () => {
    const t = setup()
    for (let i = 0; i < 30; i++) {
      t.recorder.record(regarding, warning('again'))
      await t.clock.advance(5000)
    }
    await t.recorder.settled()
    assert.deepEqual(
      t.requests.map((request) => request.method),
      ['POST', 'PATCH', 'PATCH'],
    )
    const series = (t.requests[2]!.body as { series: { count: number; lastObservedTime: string } }).series
    assert.equal(series.count, 25)
    assert.equal(series.lastObservedTime, '2026-01-01T00:02:00.000000Z')
  })

  it('writes it anew when the last one is long ago', async () => {
    const t = setup()
    t.recorder.record(regarding, warning('again'))
    await t.clock.advance(600_000)
    t.recorder.record(regarding, warning('again'))
    await t.recorder.settled()
    assert.deepEqual(
      t.requests.map((request) => request.method),
      ['POST', 'POST'],
    )
  })

  it('lets one noisy object use up its own budget only', async () => {
    const t = setup()
    for (let i = 0; i < 100; i++) t.recorder.record(regarding, warning(`event ${i}`))
    t.recorder.record({ ...regarding, uid: 'u2' }, warning('of another'))
    await t.recorder.settled()
    assert.equal(t.requests.length, 11)
    assert.equal(t.results.filter((result) => result === 'dropped').length, 90)
  })

  it('bounds all objects together', async () => {
    const t = setup({ overall: { perSecond: 1, burst: 5 } })
    for (let i = 0; i < 20; i++) t.recorder.record({ ...regarding, uid: `u${i}` }, warning('x'))
    await t.recorder.settled()
    assert.equal(t.requests.length, 5)
  })

  it('returns before anything is sent, and counts what fails', async () => {
    const t = setup()
    let fail = (): void => {}
    t.answer(
      () =>
        new Promise((_resolve, reject) => {
          fail = () => reject(new Error('forbidden'))
        }),
    )
    t.recorder.record(regarding, warning('x'))
    assert.deepEqual(t.results, [])
    fail()
    await t.recorder.settled()
    await settle()
    assert.deepEqual(t.results, ['failed'])
  })

  it('cuts a long message at 1024 bytes and never within a character', async () => {
    const t = setup()
    t.recorder.record(regarding, warning('ü'.repeat(2000)))
    await t.recorder.settled()
    const note = (t.requests[0]!.body as { note: string }).note
    assert.ok(Buffer.byteLength(note) <= 1024)
    assert.match(note, /^ü+\.\.\.$/)
  })
})
