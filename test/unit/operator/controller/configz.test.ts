import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import type { AmbassadorReport, Configz } from '../../../../common/configz.ts'
import {
  fetchConfigz,
  isConfigz,
  Reports,
  type ReportsOptions,
  type Trouble,
} from '../../../../operator/controller/configz.ts'
import type { InjectedPod } from '../../../../operator/controller/pods.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'

const KEY = 'shop/a'

function pod(over: Partial<InjectedPod> = {}): InjectedPod {
  return {
    namespace: 'shop',
    name: 'a',
    uid: 'u1',
    serves: ['payments'],
    lacks: [],
    ip: '10.0.0.1',
    telemetryPort: 14990,
    phase: 'Running',
    isRunning: true,
    isReady: true,
    restarts: 0,
    waiting: '',
    image: 'proxy:1',
    ownImage: '',
    touched: '',
    isLeftAlone: false,
    createdAt: 0,
    ...over,
  }
}

function report(over: Partial<AmbassadorReport> = {}): AmbassadorReport {
  return {
    namespace: 'shop',
    name: 'payments',
    hash: 'h1',
    generation: 1,
    since: null,
    rejected: null,
    refs: [],
    lastError: null,
    endpointsHash: null,
    unready: [],
    ...over,
  }
}

function configz(...ambassadors: AmbassadorReport[]): Configz {
  return { version: '0.1.0', pod: 'a', startedAt: '', ambassadors }
}

function setup(options: Partial<ReportsOptions> = {}) {
  const clock = new FakeClock()
  const start = clock.now()
  const asked: number[] = []
  const reported: string[] = []
  const troubles: Trouble[] = []
  let answer: () => unknown = () => configz(report())
  let current: InjectedPod | undefined
  const state = { isSettled: true }
  const reports = new Reports({
    clock,
    random: () => 0.5,
    pod: () => current,
    podCount: () => 1,
    isSettled: () => state.isSettled,
    onReport: ({ name }) => reported.push(name),
    onTrouble: (trouble) => troubles.push(trouble),
    fetch: async (_ip, _port, signal) => {
      asked.push(clock.now() - start)
      const value = answer()
      if (value !== 'hang') return value
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
    },
    ...options,
  })
  return {
    clock,
    reports,
    asked,
    reported,
    troubles,
    state,
    kind: () => (current === undefined ? 'gone' : reports.of(KEY, current, 'payments').kind),
    report: () => reports.of(KEY, current!, 'payments'),
    answer(how: () => unknown) {
      answer = how
    },
    fail(message: string) {
      answer = () => {
        throw new Error(message)
      }
    },
    async set(next: InjectedPod | undefined, isFirst = false) {
      const before = current
      current = next
      reports.podChanged(KEY, before, next, isFirst)
      await settle()
    },
  }
}

describe('reports of sidecars', () => {
  it('asks a sidecar when it starts to run, and keeps what it says', async () => {
    const t = setup()
    await t.set(pod({ isRunning: false, ip: '' }))
    assert.equal(t.kind(), 'starting')
    assert.deepEqual(t.asked, [])
    await t.set(pod())
    assert.deepEqual(t.report(), {
      kind: 'answered',
      ambassador: { hash: 'h1', generation: 1, endpointsHash: null, refs: [], rejected: null, unready: [] },
    })
    assert.deepEqual(t.reported, ['a'])
  })

  it('takes a report of an older sidecar, which does not say why it is not ready', async () => {
    const t = setup()
    const { unready: _, ...older } = report()
    t.answer(() => ({ ...configz(), ambassadors: [older] }))
    await t.set(pod())
    assert.deepEqual(t.report(), {
      kind: 'answered',
      ambassador: { hash: 'h1', generation: 1, endpointsHash: null, refs: [], rejected: null, unready: [] },
    })
  })

  it('hears why a sidecar is not ready when its readiness changes', async () => {
    const t = setup()
    await t.set(pod())
    const unready = ["upstream 'live': is down"]
    t.answer(() => configz(report({ unready })))
    await t.set(pod({ isReady: false }))
    assert.deepEqual(t.report(), {
      kind: 'answered',
      ambassador: { hash: 'h1', generation: 1, endpointsHash: null, refs: [], rejected: null, unready },
    })
    assert.deepEqual(t.reported, ['a', 'a'])
  })

  it('tells a sidecar that ran before it came from one that it saw start', async () => {
    const t = setup()
    t.answer(() => 'hang')
    await t.set(pod(), true)
    assert.equal(t.kind(), 'unasked')
    const other = setup()
    other.answer(() => 'hang')
    await other.set(pod())
    assert.equal(other.kind(), 'starting')
  })

  it('calls a sidecar silent after the second question without an answer, and asks on', async () => {
    const t = setup()
    await t.set(pod())
    t.fail('connect ECONNREFUSED')
    t.reports.hurry(KEY)
    await settle()
    assert.equal(t.kind(), 'answered')
    await t.clock.advance(1000)
    assert.deepEqual(t.report(), { kind: 'silent', message: 'connect ECONNREFUSED' })
    t.answer(() => configz(report({ hash: 'h2' })))
    await t.clock.advance(30_000)
    assert.equal(t.kind(), 'answered')
    assert.deepEqual(t.reported, ['a', 'a', 'a'])
  })

  it('does not wait for a sidecar that takes the connection and says nothing', async () => {
    const t = setup()
    t.answer(() => 'hang')
    await t.set(pod())
    await t.clock.advance(5000)
    assert.deepEqual(t.report(), { kind: 'silent', message: 'no answer within 2000 ms' })
  })

  it('does not believe another pod at the address', async () => {
    const t = setup()
    t.answer(() => ({ ...configz(report()), pod: 'b' }))
    await t.set(pod())
    await t.clock.advance(1000)
    assert.deepEqual(t.report(), { kind: 'silent', message: "pod 'b' answers at its address" })
  })

  it('forgets what a process said that was restarted or moved', async () => {
    for (const change of [{ restarts: 1 }, { ip: '10.0.0.2' }, { uid: 'u2' }]) {
      const t = setup()
      await t.set(pod())
      t.answer(() => 'hang')
      await t.set(pod(change))
      assert.equal(t.kind(), 'starting', JSON.stringify(change))
    }
  })

  it('asks slowly in peace and quickly while something is awaited', async () => {
    const t = setup()
    await t.set(pod())
    await t.clock.advance(14_000)
    assert.equal(t.asked.length, 1)
    t.state.isSettled = false
    await t.clock.advance(1_000)
    assert.equal(t.asked.length, 2)
    await t.clock.advance(2_000)
    assert.ok(t.asked.length >= 4, `asked ${t.asked.length} times`)
    t.state.isSettled = true
    await t.clock.advance(10_000)
    const before = t.asked.length
    await t.clock.advance(4_000)
    assert.equal(t.asked.length, before)
  })

  it('gets slower with the number of pods, so that ten thousand are asked 50 times a second', async () => {
    const t = setup({ podCount: () => 10_000 })
    await t.set(pod())
    await t.clock.advance(199_000)
    assert.equal(t.asked.length, 1)
    await t.clock.advance(1_000)
    assert.equal(t.asked.length, 2)
  })

  it('asks no pod that is gone', async () => {
    const t = setup()
    await t.set(pod())
    await t.set(undefined)
    await t.clock.advance(600_000)
    assert.equal(t.asked.length, 1)
  })

  it('bounds how many are asked at once and how often', async () => {
    const clock = new FakeClock()
    let running = 0
    let most = 0
    const finish: (() => void)[] = []
    const pods = new Map(Array.from({ length: 100 }, (_, i) => [`shop/p${i}`, pod({ name: `p${i}` })]))
    const reports = new Reports({
      clock,
      concurrency: 8,
      pod: (key) => pods.get(key),
      podCount: () => pods.size,
      isSettled: () => true,
      onReport: () => {},
      fetch: () =>
        new Promise((resolve) => {
          most = Math.max(most, ++running)
          finish.push(() => {
            running--
            resolve({ ...configz(report()), pod: null })
          })
        }),
    })
    for (const [key, each] of pods) reports.podChanged(key, undefined, each, true)
    await settle()
    while (finish.length > 0) {
      finish.shift()?.()
      await settle()
    }
    assert.equal(most, 8)
    for (const [key, each] of pods) assert.equal(reports.of(key, each, 'payments').kind, 'answered')
  })

  it('tells a new trouble of the data path once, and an old one never', async () => {
    const t = setup()
    const at = (secondsAgo: number) => new Date(t.clock.wall() - secondsAgo * 1000).toISOString()
    const trouble = { reason: 'tls_verify_failed', message: 'certificate not trusted', at: at(10) }
    t.answer(() => configz(report({ lastError: trouble })))
    await t.set(pod())
    t.reports.hurry(KEY)
    await settle()
    assert.equal(t.troubles.length, 1)
    t.answer(() => configz(report({ lastError: { ...trouble, at: at(3600) } })))
    t.reports.hurry(KEY)
    await settle()
    assert.equal(t.troubles.length, 1)
  })

  it('says nothing of Ambassadors of another namespace', async () => {
    const t = setup()
    t.answer(() => configz(report({ namespace: 'elsewhere' })))
    await t.set(pod())
    assert.deepEqual(t.report(), { kind: 'answered', ambassador: null })
  })
})

describe('isConfigz', () => {
  it('takes a report and nothing else', () => {
    assert.equal(isConfigz(configz(report())), true)
    assert.equal(isConfigz({ ...configz(), future: 1 }), true)
    for (const value of [
      null,
      'ok',
      42,
      [],
      {},
      { ambassadors: {}, pod: null },
      { ambassadors: [null], pod: null },
      { ambassadors: [{ ...report(), hash: 1 }], pod: null },
      { ambassadors: [{ ...report(), refs: [{}] }], pod: null },
    ]) {
      assert.equal(isConfigz(value), false, JSON.stringify(value))
    }
  })
})

describe('fetchConfigz', { timeout: 10_000 }, () => {
  async function served(listener: http.RequestListener): Promise<{ port: number } & AsyncDisposable> {
    const server = http.createServer(listener)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return {
      port: (server.address() as AddressInfo).port,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  }
  const never = new AbortController().signal

  it('reads the report at /configz', async () => {
    await using server = await served((request, response) => response.end(JSON.stringify({ url: request.url })))
    assert.deepEqual(await fetchConfigz('127.0.0.1', server.port, never), { url: '/configz' })
  })

  for (const [name, listener, message] of [
    ['another status', (_: unknown, response: http.ServerResponse) => response.writeHead(503).end(), /status 503/],
    ['prose', (_: unknown, response: http.ServerResponse) => response.end('hello'), /not JSON/],
    [
      'two megabytes',
      (_: unknown, response: http.ServerResponse) => response.end('x'.repeat(2_000_000)),
      /longer than/,
    ],
    [
      'a reset',
      (_: unknown, response: http.ServerResponse) => void response.socket?.resetAndDestroy(),
      /ECONNRESET|hang up/,
    ],
  ] as const) {
    it(`says what is wrong with ${name}`, async () => {
      await using server = await served(listener as http.RequestListener)
      await assert.rejects(fetchConfigz('127.0.0.1', server.port, never), message)
    })
  }

  it('ends when it is told to', async () => {
    const abort = new AbortController()
    await using server = await served(() => abort.abort())
    await assert.rejects(fetchConfigz('127.0.0.1', server.port, abort.signal))
  })
})
