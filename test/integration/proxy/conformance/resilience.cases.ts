/** Retries, deadlines, gates and the answers that the proxy makes itself: each group runs on a process with a config of its own. */
import assert from 'node:assert/strict'
import type { RetryConfig } from '../../../../common/proxy-config.ts'
import type { Bench, Patch, UpstreamWire, Wire } from './wire.ts'

export interface ResilienceCase {
  readonly name: string
  readonly run: (bench: Bench) => Promise<void>
}

export interface ResilienceGroup {
  readonly title: string
  readonly patch: Patch
  readonly cases: readonly ResilienceCase[]
  /** Its cases wait most of the time and keep out of each other's way: all run at the same time. */
  readonly isTogether?: boolean
}

const get = (path = '/', ...lines: string[]): string =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n`
const withBody = (method: string, body: string, ...lines: string[]): string =>
  `${method} / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n${body}`
const answer = (status: number, body = '', ...lines: string[]): string =>
  `HTTP/1.1 ${status} x\r\nContent-Length: ${body.length}\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n${body}`
const cases = (all: Readonly<Record<string, (bench: Bench) => Promise<void>>>): ResilienceCase[] =>
  Object.entries(all).map(([name, run]) => ({ name, run }))

/** One answer of an upstream, or what it does instead. */
type Step = string | 'reset' | 'fin' | 'silence'

/** Each request gets the next step; the last one goes on. */
function script(bench: Bench, ...steps: readonly Step[]): void {
  bench.upstream.respond = (wire: UpstreamWire, _request: string, index: number) => {
    play(wire, steps[Math.min(index, steps.length - 1)]!)
  }
}

/** The same for the requests to one path, beside whatever is said of others; tells how many came. */
function scriptAt(bench: Bench, path: string, ...steps: readonly Step[]): () => number {
  const others = bench.upstream.respond
  let count = 0
  bench.upstream.respond = (wire, request, index) => {
    if (request.split(' ')[1] === path) play(wire, steps[Math.min(count++, steps.length - 1)]!)
    else others?.(wire, request, index)
  }
  return () => count
}

function play(wire: UpstreamWire, step: Step): void {
  if (step === 'reset') wire.reset()
  else if (step === 'fin') wire.end()
  else if (step !== 'silence') void wire.send(step)
}

interface Answer {
  readonly status: number
  readonly head: string
  readonly body: string
}

/** Reads the answer that begins at `from` and is the last thing on the wire. */
async function read(client: Wire, from = 0): Promise<Answer> {
  const isWhole = (): boolean => {
    const text = client.text.slice(from)
    const headEnd = text.indexOf('\r\n\r\n') + 4
    const [, length] = /\r\nContent-Length: (\d+)\r\n/.exec(text.slice(0, headEnd)) ?? []
    return headEnd >= 4 && text.length >= headEnd + Number(length ?? 0)
  }
  await client.until('an answer', () => isWhole() || client.isOver)
  const text = client.text.slice(from)
  const headEnd = text.indexOf('\r\n\r\n') + 4
  return { status: Number(text.slice(9, 12)), head: text.slice(0, headEnd), body: text.slice(headEnd) }
}

async function ask(bench: Bench, request: string): Promise<Answer> {
  const client = bench.client()
  await client.send(request)
  return read(client)
}

const field = (of: Answer, name: string): string | null =>
  new RegExp(`\r\n${name}: ([^\r]*)\r\n`, 'i').exec(of.head)?.[1] ?? null

/** An answer of the proxy itself, whole in every part. */
function isProblem(of: Answer, status: number, reason: string, proxyError?: string): void {
  assert.equal(of.status, status, of.head + of.body)
  assert.equal(field(of, 'x-ambassador-reason'), reason)
  assert.equal(field(of, 'content-type'), 'application/problem+json')
  assert.ok(!Number.isNaN(Date.parse(field(of, 'date') ?? '')))
  const proxyStatus = /^ambassador; error=([a-z_]+); details="((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"$/.exec(
    field(of, 'proxy-status') ?? '',
  )
  assert.ok(proxyStatus, field(of, 'proxy-status') ?? 'no Proxy-Status')
  if (proxyError !== undefined) assert.equal(proxyStatus[1], proxyError)
  const problem = JSON.parse(of.body) as Record<string, unknown>
  assert.deepEqual(Object.keys(problem).sort(), ['detail', 'reason', 'requestId', 'status', 'title', 'type'])
  assert.equal(problem['type'], 'about:blank')
  assert.equal(problem['status'], status)
  assert.equal(problem['reason'], reason)
  assert.equal(problem['requestId'], field(of, 'x-request-id'))
  assert.ok(of.head.startsWith(`HTTP/1.1 ${status} ${problem['title']}\r\n`))
}

const requests = (bench: Bench): number => bench.upstream.requests.length

const RETRY: RetryConfig = {
  maxRetries: 2,
  on: ['ConnectFailure', 'Reset', 'Timeout'],
  statuses: [429, 500, 502, 503, 504],
  perTryTimeoutMs: null,
  backoff: { initialMs: 1, maxMs: 2 },
  budget: { ratio: 1, minPerSecond: 1000 },
  maxBufferedBodyBytes: 1000,
  methods: 'Idempotent',
}
/** A try that is answered at all is answered in this time, unless the machine stands still for so long. */
const SLOW_RETRY: RetryConfig = { ...RETRY, perTryTimeoutMs: 1000 }
const BREAKER = { consecutiveFailures: 3, failureRate: null, openMs: 2000, maxOpenMs: 2000, halfOpenRequests: 1 }

/** Changes of the only cluster. */
const cluster =
  (change: object): Patch =>
  (config) => ({ ...config, clusters: [{ ...config.clusters[0]!, ...change }] })
const limits = (maxConnections: number, maxPendingRequests: number): Patch =>
  cluster({ limits: { maxConnections, maxPendingRequests, maxConcurrentRetries: 64 } })
/** Nobody listens there: port 1 of loopback. */
const DEAD: Patch = cluster({
  discovery: { kind: 'endpoints', endpoints: [{ host: '127.0.0.1', port: 1, weight: 1, priority: 0 }] },
})

const retried = (method: string, request: string): Record<string, (bench: Bench) => Promise<void>> => ({
  [`${method} is sent again after 503`]: async (bench) => {
    script(bench, answer(503, 'no'), answer(200, 'yes'))
    assert.equal((await ask(bench, request)).status, 200)
    assert.equal(requests(bench), 2)
  },
  [`${method} is sent again after a reset`]: async (bench) => {
    script(bench, 'reset', answer(200, 'yes'))
    assert.equal((await ask(bench, request)).status, 200)
    assert.equal(requests(bench), 2)
  },
  [`${method} is sent again after a FIN`]: async (bench) => {
    script(bench, 'fin', answer(200, 'yes'))
    assert.equal((await ask(bench, request)).status, 200)
    assert.equal(requests(bench), 2)
  },
})

let paths = 0
/** A request with another path, which no other has. */
const apart = (request: string): { readonly path: string; readonly request: string } => {
  const path = `/apart/${++paths}`
  return { path, request: request.replace(' / ', ` ${path} `) }
}

const retriedLate = (method: string, given: string): Record<string, (bench: Bench) => Promise<void>> => ({
  [`${method} is sent again after a try that took too long`]: async (bench) => {
    const { path, request } = apart(given)
    const count = scriptAt(bench, path, 'silence', answer(200, 'yes'))
    assert.equal((await ask(bench, request)).status, 200)
    assert.equal(count(), 2)
  },
})

const sentOnceLate = (method: string, given: string): Record<string, (bench: Bench) => Promise<void>> => ({
  [`${method} is not sent again after a try that took too long`]: async (bench) => {
    const { path, request } = apart(given)
    const count = scriptAt(bench, path, 'silence', answer(200, 'yes'))
    isProblem(await ask(bench, request), 504, 'try_timeout', 'http_response_timeout')
    assert.equal(count(), 1)
  },
})

const sentOnce = (method: string, request: string): Record<string, (bench: Bench) => Promise<void>> => ({
  [`${method} is not sent again after 503`]: async (bench) => {
    script(bench, answer(503, 'no'), answer(200, 'yes'))
    const got = await ask(bench, request)
    assert.equal(got.status, 503)
    assert.equal(got.body, 'no')
    assert.equal(field(got, 'x-ambassador-reason'), null)
    assert.equal(requests(bench), 1)
  },
  [`${method} is not sent again after a reset`]: async (bench) => {
    script(bench, 'reset', answer(200, 'yes'))
    isProblem(await ask(bench, request), 502, 'upstream_reset', 'connection_terminated')
    assert.equal(requests(bench), 1)
  },
})

export const GROUPS: readonly ResilienceGroup[] = [
  {
    title: 'retries',
    patch: (config) => ({ ...config, retry: RETRY, timeouts: { ...config.timeouts, requestMs: 30_000 } }),
    cases: cases({
      ...retried('GET', get()),
      ...retried('PUT', withBody('PUT', 'hello')),
      ...retried('DELETE', get().replace('GET', 'DELETE')),
      ...retried('OPTIONS', get().replace('GET', 'OPTIONS')),
      ...retried('POST with Idempotency-Key', withBody('POST', 'hello', 'Idempotency-Key: "1"')),
      ...retried('PATCH with Idempotency-Key', withBody('PATCH', 'hello', 'idempotency-key: 1')),
      ...sentOnce('POST', withBody('POST', 'hello')),
      ...sentOnce('PATCH', withBody('PATCH', 'hello')),
      ...sentOnce('an unknown method', get().replace('GET', 'PURGEX')),
      ...Object.fromEntries(
        [429, 500, 502, 503, 504].map((status) => [
          `${status} is tried again`,
          async (bench: Bench) => {
            script(bench, answer(status), answer(200, 'yes'))
            assert.equal((await ask(bench, get())).body, 'yes')
            assert.equal(requests(bench), 2)
          },
        ]),
      ),
      ...Object.fromEntries(
        [400, 401, 404, 408, 409, 501, 505, 507].map((status) => [
          `${status} is not tried again`,
          async (bench: Bench) => {
            script(bench, answer(status, 'final'), answer(200, 'yes'))
            assert.equal((await ask(bench, get())).body, 'final')
            assert.equal(requests(bench), 1)
          },
        ]),
      ),
      'HEAD is sent again and its answer has no body': async (bench) => {
        script(bench, 'HTTP/1.1 503 x\r\nContent-Length: 5\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n')
        const client = bench.client()
        await client.send(get().replace('GET', 'HEAD'))
        await client.has(/\r\n\r\n$/)
        assert.equal(client.text, 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n')
        assert.equal(requests(bench), 2)
      },
      'every try has the same bytes, request id and body too': async (bench) => {
        script(bench, answer(503), answer(503), answer(200))
        await ask(bench, withBody('PUT', 'hello', 'X: y', 'x: z'))
        const [first, second, third] = bench.upstream.requests
        assert.match(first!, /\r\nX-Request-ID: .{36}\r\n/)
        assert.equal(second, first)
        assert.equal(third, first)
      },
      'a chunked body is sent again whole': async (bench) => {
        script(bench, answer(503), answer(200))
        await ask(
          bench,
          'PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX: y\r\n\r\n',
        )
        assert.match(bench.upstream.requests[1]!, /\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n$/)
      },
      'the last answer passes when retries are used up': async (bench) => {
        script(bench, answer(503, 'one'), answer(503, 'two'), answer(503, 'three', 'X: y'))
        const got = await ask(bench, get())
        assert.equal(got.status, 503)
        assert.equal(got.body, 'three')
        assert.equal(field(got, 'x'), 'y')
        assert.equal(requests(bench), 3)
      },
      'the last failure is told when retries are used up': async (bench) => {
        script(bench, 'reset')
        isProblem(await ask(bench, get()), 502, 'upstream_reset', 'connection_terminated')
        assert.equal(requests(bench), 3)
      },
      'a mixture of failures ends in an answer': async (bench) => {
        script(bench, 'reset', answer(500), answer(200, 'yes'))
        assert.equal((await ask(bench, get())).body, 'yes')
        assert.equal(requests(bench), 3)
      },
      'a response that is not HTTP is not asked for again': async (bench) => {
        script(bench, 'SSH-2.0-x\r\n', answer(200, 'yes'))
        isProblem(await ask(bench, get()), 502, 'upstream_reset', 'http_protocol_error')
        assert.equal(requests(bench), 1)
      },
      'an answer that has begun is never asked for again': async (bench) => {
        bench.upstream.respond = (wire) => void wire.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello')
        const client = bench.client()
        await client.send(get())
        await client.has(/hello$/)
        bench.upstream.wires[0]!.reset()
        await client.over()
        assert.match(client.text, /hello$/)
        assert.equal(requests(bench), 1)
      },
      'a body beyond the bound is sent once, and the answer passes': async (bench) => {
        script(bench, answer(503, 'no'), answer(200, 'yes'))
        assert.equal((await ask(bench, withBody('PUT', 'z'.repeat(1001)))).body, 'no')
        assert.equal(requests(bench), 1)
      },
      'a body beyond the bound that met a reset is told as such': async (bench) => {
        script(bench, 'reset', answer(200, 'yes'))
        isProblem(await ask(bench, withBody('PUT', 'z'.repeat(1001))), 502, 'body_too_large_to_retry')
        assert.equal(requests(bench), 1)
      },
      'a body at the bound is sent again': async (bench) => {
        script(bench, 'reset', answer(200, 'yes'))
        assert.equal((await ask(bench, withBody('PUT', 'z'.repeat(1000)))).body, 'yes')
        assert.equal(requests(bench), 2)
      },
      'an answer before the end of the request is final': async (bench) => {
        const client = bench.client()
        await client.send('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello')
        const wire = await bench.upstream.wire()
        await wire.has(/hello$/)
        await wire.send(answer(503, 'early'))
        assert.equal((await read(client)).body, 'early')
        assert.equal(bench.upstream.wires.length, 1)
      },
      'Retry-After in seconds is waited for': async (bench) => {
        script(bench, answer(503, '', 'Retry-After: 1'), answer(200, 'yes'))
        const started = performance.now()
        assert.equal((await ask(bench, get())).body, 'yes')
        const took = performance.now() - started
        assert.ok(took >= 990 && took < 20_000, String(took))
      },
      'Retry-After as a date is waited for': async (bench) => {
        // A date has whole seconds: this one is one to two of them away.
        const started = performance.now()
        script(bench, answer(503, '', `Retry-After: ${new Date(Date.now() + 2000).toUTCString()}`), answer(200, 'yes'))
        assert.equal((await ask(bench, get())).body, 'yes')
        const took = performance.now() - started
        assert.ok(took >= 900 && took < 20_000, String(took))
      },
      'Retry-After in the past is no wait': async (bench) => {
        script(bench, answer(503, '', 'Retry-After: Sun, 06 Nov 1994 08:49:37 GMT'), answer(200, 'yes'))
        const started = performance.now()
        assert.equal((await ask(bench, get())).body, 'yes')
        assert.ok(performance.now() - started < 20_000)
      },
      'Retry-After that nobody can read is no wait': async (bench) => {
        script(bench, answer(503, '', 'Retry-After: soon'), answer(200, 'yes'))
        assert.equal((await ask(bench, get())).body, 'yes')
      },
      'Retry-After beyond the deadline passes with its answer': async (bench) => {
        script(bench, answer(503, 'later', 'Retry-After: 60'))
        const got = await ask(bench, get())
        assert.equal(got.body, 'later')
        assert.equal(field(got, 'retry-after'), '60')
        assert.equal(requests(bench), 1)
      },
      'a client that leaves ends the retries': async (bench) => {
        bench.upstream.respond = (wire) => void wire.send(answer(503, '', 'Retry-After: 20'))
        const client = bench.client()
        await client.send(get())
        await bench.upstream.until('the first try', () => requests(bench) === 1)
        client.destroy()
        await bench.proxy.line((line) => line['reason'] === 'client_gone')
        assert.equal(requests(bench), 1)
      },
      'the client connection goes on behind a retried answer and behind a failure': async (bench) => {
        // The first reset meets a connection that was used before, which is no try.
        script(bench, answer(503), answer(200, 'one'), 'reset', 'reset', 'reset', 'reset', answer(200, 'two'))
        const client = bench.client()
        await client.send(get())
        assert.equal((await read(client)).body, 'one')
        let from = client.length
        await client.send(get())
        isProblem(await read(client, from), 502, 'upstream_reset')
        from = client.length
        await client.send(get())
        assert.equal((await read(client, from)).body, 'two')
      },
      'retries are counted by how they ended': async (bench) => {
        script(bench, answer(503), answer(200))
        const count = async (): Promise<number> =>
          Number(
            /ambassador_retries_total\{[^}]*outcome="success"[^}]*\} (\d+)/.exec(
              (await bench.proxy.get('/metrics')).body,
            )?.[1],
          )
        const before = await count()
        await ask(bench, get())
        assert.equal(await count(), before + 1)
      },
    }),
  },
  {
    title: 'tries that take too long',
    isTogether: true,
    patch: (config) => ({ ...config, retry: SLOW_RETRY, timeouts: { ...config.timeouts, requestMs: 30_000 } }),
    cases: cases({
      ...retriedLate('GET', get()),
      ...retriedLate('PUT', withBody('PUT', 'hello')),
      ...retriedLate('DELETE', get().replace('GET', 'DELETE')),
      ...retriedLate('OPTIONS', get().replace('GET', 'OPTIONS')),
      ...retriedLate('POST with Idempotency-Key', withBody('POST', 'hello', 'Idempotency-Key: "1"')),
      ...retriedLate('PATCH with Idempotency-Key', withBody('PATCH', 'hello', 'idempotency-key: 1')),
      ...sentOnceLate('POST', withBody('POST', 'hello')),
      ...sentOnceLate('PATCH', withBody('PATCH', 'hello')),
      ...sentOnceLate('an unknown method', get().replace('GET', 'PURGEX')),
      'all of a request are told as try_timeout': async (bench) => {
        const { path, request } = apart(get())
        const count = scriptAt(bench, path, 'silence')
        const started = performance.now()
        isProblem(await ask(bench, request), 504, 'try_timeout', 'http_response_timeout')
        const took = performance.now() - started
        assert.ok(took >= 2990 && took < 20_000, String(took))
        assert.equal(count(), 3)
        for (const wire of bench.upstream.wires) if (wire.text.includes(`${path} `)) await wire.over()
      },
    }),
  },
  {
    title: 'tries that take too long, with methods: All',
    isTogether: true,
    patch: (config) => ({ ...config, retry: { ...SLOW_RETRY, methods: 'All' } }),
    cases: cases({
      ...retriedLate('POST', withBody('POST', 'hello')),
      ...retriedLate('an unknown method', get().replace('GET', 'PURGEX')),
    }),
  },
  {
    title: 'retries with methods: All',
    patch: (config) => ({ ...config, retry: { ...RETRY, methods: 'All' } }),
    cases: cases({
      ...retried('POST', withBody('POST', 'hello')),
      ...retried('an unknown method', get().replace('GET', 'PURGEX')),
    }),
  },
  {
    title: 'retries without budget',
    patch: (config) => ({ ...config, retry: { ...RETRY, budget: { ratio: 0, minPerSecond: 0 } } }),
    cases: cases({
      'an answer passes': async (bench) => {
        script(bench, answer(503, 'real'))
        assert.equal((await ask(bench, get())).body, 'real')
        assert.equal(requests(bench), 1)
      },
      'a failure is told as budget_exhausted': async (bench) => {
        script(bench, 'reset')
        isProblem(await ask(bench, get()), 503, 'budget_exhausted')
        assert.equal(requests(bench), 1)
      },
      'a stale connection is replaced all the same': async (bench) => {
        script(bench, answer(200, 'one'), 'reset', answer(200, 'two'))
        const client = bench.client()
        await client.send(get())
        await read(client)
        const from = client.length
        await client.send(get())
        assert.equal((await read(client, from)).body, 'two')
      },
    }),
  },
  {
    title: 'retries within a budget of a fifth',
    patch: (config) => ({ ...config, retry: { ...RETRY, budget: { ratio: 0.2, minPerSecond: 0 } } }),
    cases: cases({
      'a dead upstream gets at most 1.2 times the requests': async (bench) => {
        script(bench, answer(503, 'no'))
        const client = bench.client()
        for (let i = 0; i < 100; i++) {
          const from = client.length
          await client.send(get())
          assert.equal((await read(client, from)).body, 'no')
        }
        assert.ok(requests(bench) <= 120 && requests(bench) >= 110, String(requests(bench)))
      },
    }),
  },
  {
    title: 'retries within the default budget',
    patch: (config) => ({ ...config, retry: { ...RETRY, budget: { ratio: 0.2, minPerSecond: 10 } } }),
    cases: cases({
      'a dead upstream gets at most 1.2 times the requests, the reserve for quiet times included': async (bench) => {
        script(bench, answer(503, 'no'))
        const client = bench.client()
        const whole = answer(503, 'no').length
        const times: number[] = []
        let busyAt: number | undefined
        for (let i = 1; i <= 1000; i++) {
          await client.send(get())
          times.push(performance.now())
          if (i > 50 && times.at(-1)! - times.at(-51)! < 1000) busyAt ??= times.at(-1)!
          await client.until(`answer ${i}`, () => client.length >= i * whole || client.isOver)
        }
        const { length } = bench.upstream.wires.flatMap((wire) => wire.text.match(/^GET /gm) ?? [])
        // Until fifty came within a second, which a slow machine may take seconds for, the upstream is a quiet one and has its reserve.
        const reserve = Math.floor(((busyAt ?? times.at(-1)!) - times[0]!) / 1000) * 10
        assert.ok(length <= 1200 + reserve && length >= 1150, `${length}, reserve ${reserve}`)
      },
    }),
  },
  {
    title: 'an upstream that nobody listens on',
    patch: (config) => DEAD({ ...config, retry: RETRY }),
    cases: cases({
      'GET is told connect_refused': async (bench) => {
        isProblem(await ask(bench, get()), 502, 'connect_refused', 'connection_refused')
      },
      'POST is told connect_refused': async (bench) => {
        isProblem(await ask(bench, withBody('POST', 'hello')), 502, 'connect_refused', 'connection_refused')
      },
      'HEAD is told so without a body': async (bench) => {
        const client = bench.client()
        await client.send(get().replace('GET', 'HEAD'))
        await client.has(/\r\n\r\n$/)
        assert.match(client.text, /^HTTP\/1\.1 502 .*\r\nX-Ambassador-Reason: connect_refused\r\n/s)
        const before = client.length
        await client.send(get())
        isProblem(await read(client, before), 502, 'connect_refused')
      },
      'HTTP/1.0 is told so and let go': async (bench) => {
        const client = bench.client()
        await client.send('GET / HTTP/1.0\r\n\r\n')
        await client.over()
        const got = await read(client)
        isProblem(got, 502, 'connect_refused')
        assert.equal(field(got, 'connection'), 'close')
      },
      'a request id of the application comes back': async (bench) => {
        const got = await ask(bench, get('/', 'X-Request-ID: mine-1'))
        isProblem(got, 502, 'connect_refused')
        assert.equal(field(got, 'x-request-id'), 'mine-1')
      },
      'a request id with quotes and backslashes stays one string': async (bench) => {
        const got = await ask(bench, get('/', 'X-Request-ID: "a\\b"'))
        isProblem(got, 502, 'connect_refused')
      },
      'a request id above ASCII comes back byte for byte': async (bench) => {
        const got = await ask(bench, get('/', 'X-Request-ID: caf\xe9'))
        assert.equal(field(got, 'x-request-id'), 'caf\xe9')
        assert.equal(got.body.length, Number(field(got, 'content-length')))
      },
      'a made request id is a UUID of version 7, another one each time': async (bench) => {
        const ids = new Set<string | null>()
        for (let i = 0; i < 5; i++) ids.add(field(await ask(bench, get()), 'x-request-id'))
        assert.equal(ids.size, 5)
        for (const id of ids) assert.match(id!, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      },
      'a body that is not read ends the connection': async (bench) => {
        const client = bench.client()
        await client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome')
        await client.over()
        const got = await read(client)
        isProblem(got, 502, 'connect_refused')
        assert.equal(field(got, 'connection'), 'close')
      },
      'the same code is in log and metric': async (bench) => {
        await ask(bench, get('/', 'X-Request-ID: find-me'))
        const line = await bench.proxy.line((each) => each['requestId'] === 'find-me')
        assert.equal(line['reason'], 'connect_refused')
        assert.equal(line['status'], 502)
        assert.equal(line['attempts'], 3)
        const metrics = (await bench.proxy.get('/metrics')).body
        assert.match(metrics, /^ambassador_request_failures_total\{[^}]*reason="connect_refused"[^}]*\} [1-9]/m)
        assert.match(metrics, /^ambassador_requests_total\{[^}]*status="502"[^}]*\} [1-9]/m)
        assert.match(metrics, /^ambassador_request_duration_seconds_count\{[^}]*\} [1-9]/m)
        assert.match(metrics, /^ambassador_request_duration_count\{[^}]*\} [1-9]/m)
      },
      'a refused request is in log and metric too': async (bench) => {
        await ask(bench, 'GET / HTTP/1.1\r\n\r\n')
        await bench.proxy.line((each) => each['reason'] === 'bad_request' && each['status'] === 400)
        const metrics = (await bench.proxy.get('/metrics')).body
        assert.match(metrics, /^ambassador_request_failures_total\{[^}]*reason="bad_request"[^}]*\} [1-9]/m)
        assert.match(metrics, /^ambassador_requests_total\{[^}]*status="400"[^}]*\} [1-9]/m)
      },
    }),
  },
  {
    title: 'deadlines',
    patch: (config) => ({ ...config, timeouts: { connectMs: 1000, requestMs: 1000, idleMs: 3000 } }),
    cases: cases({
      'a request that is not answered is told deadline': async (bench) => {
        script(bench, 'silence')
        const started = performance.now()
        isProblem(await ask(bench, get()), 504, 'deadline', 'http_response_timeout')
        const took = performance.now() - started
        assert.ok(took >= 990 && took < 20_000, String(took))
        await bench.upstream.wires[0]!.over()
      },
      'interim answers do not put the deadline off': async (bench) => {
        bench.upstream.respond = (wire) => void wire.send('HTTP/1.1 103 Early Hints\r\n\r\n')
        const client = bench.client()
        await client.send(get())
        await client.has(/\}\n$/)
        assert.match(client.text, /^HTTP\/1\.1 103 Early Hints\r\n\r\nHTTP\/1\.1 504 /)
      },
    }),
  },
  {
    title: 'what takes longer than the deadline once it has begun',
    isTogether: true,
    patch: (config) => ({ ...config, timeouts: { connectMs: 1000, requestMs: 1000, idleMs: 20_000 } }),
    cases: cases({
      'an answer may do so': async (bench) => {
        const { path, request } = apart(get())
        scriptAt(bench, path, 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n')
        const client = bench.client()
        await client.send(request)
        await client.has(/\r\n\r\n$/)
        const wire = bench.upstream.wires.find(({ text }) => text.includes(`${path} `))!
        for (const letter of 'slow') {
          await new Promise((resolve) => setTimeout(resolve, 300))
          await wire.send(letter)
        }
        await client.has(/slow$/)
      },
      'an upload may do so': async (bench) => {
        const { path, request } = apart('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n')
        scriptAt(bench, path, answer(200, 'yes'))
        const client = bench.client()
        await client.send(request)
        for (const letter of 'slow') {
          await new Promise((resolve) => setTimeout(resolve, 300))
          await client.send(letter)
        }
        assert.equal((await read(client)).body, 'yes')
      },
    }),
  },
  {
    title: 'bodies that stand still',
    patch: (config) => ({ ...config, timeouts: { connectMs: 1000, requestMs: 20_000, idleMs: 1000 } }),
    cases: cases({
      'an answer in which no byte moves is cut': async (bench) => {
        bench.upstream.respond = (wire) => void wire.send('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nst')
        const client = bench.client()
        await client.send(get())
        assert.match(await client.over(), /\r\n\r\nst$/)
        await bench.upstream.wires[0]!.over()
      },
      'an upload in which no byte moves is told 408': async (bench) => {
        const client = bench.client()
        await client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nst')
        await client.over()
        isProblem(await read(client), 408, 'bad_request')
        await bench.upstream.wires[0]!.over()
      },
    }),
  },
  {
    title: 'the breaker',
    patch: cluster({ circuitBreaker: BREAKER }),
    cases: cases({
      'opens after failures in a row, refuses, lets one probe through, and closes': async (bench) => {
        script(bench, answer(500), answer(500), answer(500), 'silence')
        for (let i = 0; i < 3; i++) assert.equal((await ask(bench, get())).status, 500)
        const refused = await ask(bench, get())
        isProblem(refused, 503, 'circuit_open', 'destination_unavailable')
        assert.match(field(refused, 'retry-after')!, /^[1-9]\d*$/)
        assert.match((await bench.proxy.get('/metrics')).body, /^ambassador_circuit_state\{[^}]*\} 2$/m)
        assert.equal(requests(bench), 3)
        // A circuit is open a tenth longer or shorter than asked for.
        await new Promise((resolve) => setTimeout(resolve, 2300))
        const clients = Array.from({ length: 20 }, () => bench.client())
        for (const client of clients) await client.send(get())
        await bench.upstream.until('the probe', () => requests(bench) === 4)
        while (clients.filter(({ length }) => length > 0).length < 19)
          await new Promise((resolve) => setTimeout(resolve, 5))
        const [probing, ...more] = clients.filter(({ length }) => length === 0)
        assert.deepEqual(more, [])
        for (const client of clients) if (client !== probing) isProblem(await read(client), 503, 'circuit_open')
        assert.equal(requests(bench), 4, 'one probe')
        script(bench, answer(200, 'well'))
        await bench.upstream.wires
          .find((wire) => !wire.isOver && wire.length > 0 && wire.text.split('GET').length > 1)!
          .send(answer(200, 'probe'))
        assert.equal((await read(probing!)).body, 'probe')
        assert.equal((await ask(bench, get())).body, 'well')
        assert.match((await bench.proxy.get('/metrics')).body, /^ambassador_circuit_state\{[^}]*\} 0$/m)
      },
      'does not count 4xx, 501, clients that leave': async (bench) => {
        for (const status of [400, 404, 429, 501]) {
          script(bench, answer(status))
          for (let i = 0; i < 4; i++) assert.equal((await ask(bench, get())).status, status)
          bench.upstream.requests.length = 0
        }
        script(bench, 'silence')
        for (let i = 0; i < 4; i++) {
          const client = bench.client()
          await client.send(get('/', `X-Request-ID: gone-${i}`))
          await bench.upstream.until('it', () => requests(bench) === i + 1)
          client.destroy()
          await bench.proxy.line((line) => line['requestId'] === `gone-${i}`)
        }
        script(bench, answer(200, 'well'))
        assert.equal((await ask(bench, get())).body, 'well')
      },
      'does not open while successes come between': async (bench) => {
        script(bench, answer(500), answer(500), answer(200), answer(500), answer(500), answer(200))
        for (const status of [500, 500, 200, 500, 500, 200]) assert.equal((await ask(bench, get())).status, status)
      },
      'opens after resets': async (bench) => {
        script(bench, 'reset')
        for (let i = 0; i < 3; i++) isProblem(await ask(bench, get()), 502, 'upstream_reset')
        isProblem(await ask(bench, get()), 503, 'circuit_open')
      },
    }),
  },
  {
    title: 'the breaker and the ends of answers',
    patch: cluster({ circuitBreaker: BREAKER }),
    cases: cases({
      'counts an answer as one that went well when it is whole, or when its client leaves': async (bench) => {
        const [whole, left] = [answer(200, 'whole'), 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhe']
        for (const good of [whole, left]) {
          script(bench, answer(500))
          for (let i = 0; i < 2; i++) assert.equal((await ask(bench, get())).status, 500)
          script(bench, good)
          const client = bench.client()
          await client.send(get('/', `X-Request-ID: good-${good.length}`))
          await client.has(/200 OK|200 x/)
          if (good === left) client.destroy()
          await bench.proxy.line((line) => line['requestId'] === `good-${good.length}`)
        }
        script(bench, answer(500))
        for (let i = 0; i < 2; i++) assert.equal((await ask(bench, get())).status, 500)
        script(bench, answer(200, 'well'))
        assert.equal((await ask(bench, get())).body, 'well')
      },
      'opens after answers that are cut short': async (bench) => {
        const cuts: (readonly [head: string, end: 'fin' | 'reset'])[] = [
          ['Content-Length: 10', 'fin'],
          ['Transfer-Encoding: chunked', 'fin'],
          ['Content-Length: 10', 'reset'],
        ]
        for (const [head, end] of cuts) {
          const before = bench.upstream.wires.length
          const client = bench.client()
          await client.send(get())
          const wire = await bench.upstream.wire(before)
          await wire.request()
          await wire.send(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n5\r\nhe`)
          await client.has(/he$/)
          play(wire, end)
          await client.over()
        }
        isProblem(await ask(bench, get()), 503, 'circuit_open')
      },
    }),
  },
  {
    title: 'one connection and one place in the queue',
    patch: limits(1, 1),
    cases: cases({
      'a second request waits, a third is refused': async (bench) => {
        const [one, two, three] = [bench.client(), bench.client(), bench.client()]
        await one.send(get('/1'))
        const wire = await bench.upstream.wire()
        await wire.request()
        await two.send(get('/2'))
        let waiting = ''
        while (!/ambassador_connections\{[^}]*state="waiting"[^}]*\} 1/.test(waiting))
          waiting = (await bench.proxy.get('/metrics')).body
        await three.send(get('/3'))
        const refused = await read(three)
        isProblem(refused, 503, 'queue_full', 'connection_limit_reached')
        assert.match(field(refused, 'retry-after')!, /^[1-9]\d*$/)
        await wire.send(answer(200, 'one'))
        assert.equal((await read(one)).body, 'one')
        assert.match(await wire.request(1), /^GET \/2 /)
        await wire.send(answer(200, 'two'))
        assert.equal((await read(two)).body, 'two')
        assert.equal(bench.upstream.wires.length, 1)
      },
      'a request that waits gives its place back when its client leaves': async (bench) => {
        const [one, two, three] = [bench.client(), bench.client(), bench.client()]
        await one.send(get('/1'))
        const wire = await bench.upstream.wire()
        await wire.request()
        await two.send(get('/2', 'X-Request-ID: left'))
        let waiting = ''
        while (!/ambassador_connections\{[^}]*state="waiting"[^}]*\} 1/.test(waiting))
          waiting = (await bench.proxy.get('/metrics')).body
        two.destroy()
        await bench.proxy.line((line) => line['requestId'] === 'left')
        await three.send(get('/3'))
        await wire.send(answer(200, 'one'))
        assert.match(await wire.request(1), /^GET \/3 /)
        await wire.send(answer(200, 'three'))
        assert.equal((await read(three)).body, 'three')
      },
    }),
  },
  {
    title: 'a rate limit that rejects',
    patch: (config) => ({
      ...config,
      rateLimit: { requests: 1, perMs: 60_000, burst: 2, onLimit: 'Reject', maxDelayMs: 0 },
    }),
    cases: cases({
      'two pass, then 429 with Retry-After; the connection goes on': async (bench) => {
        script(bench, answer(200, 'yes'))
        const client = bench.client()
        for (let i = 0; i < 2; i++) {
          const from = client.length
          await client.send(get())
          assert.equal((await read(client, from)).body, 'yes')
        }
        for (let i = 0; i < 2; i++) {
          const from = client.length
          await client.send(get())
          const refused = await read(client, from)
          isProblem(refused, 429, 'rate_limited')
          const after = Number(field(refused, 'retry-after'))
          assert.ok(after > 30 && after <= 60, String(after))
          assert.match(field(refused, 'ratelimit') ?? '', /;r=0;t=\d+$/)
          assert.match(field(refused, 'ratelimit-policy') ?? '', /;q=\d+;w=\d+$/)
          assert.equal(field(refused, 'connection'), null)
        }
        assert.equal(requests(bench), 2)
        assert.match((await bench.proxy.get('/metrics')).body, /^ambassador_rate_limited_total\{[^}]*\} 2$/m)
      },
    }),
  },
  {
    title: 'a rate limit that delays',
    patch: (config) => ({
      ...config,
      rateLimit: { requests: 1, perMs: 2000, burst: 1, onLimit: 'Delay', maxDelayMs: 2500 },
    }),
    cases: cases({
      'requests are spread out up to the bound, then refused': async (bench) => {
        script(bench, answer(200, 'yes'))
        const started = performance.now()
        const clients = Array.from({ length: 6 }, () => bench.client())
        await bench.frozen(async () => {
          for (const client of clients) await client.send(get())
        })
        const answers = await Promise.all(clients.map((client) => read(client)))
        assert.ok(performance.now() - started >= 1990)
        assert.equal(answers.filter(({ status }) => status === 200).length, 2)
        for (const refused of answers.filter(({ status }) => status !== 200)) isProblem(refused, 429, 'rate_limited')
        assert.equal(requests(bench), 2)
      },
    }),
  },
]
