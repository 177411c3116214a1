import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** Reads the text format strictly: a line that breaks it fails. */
function parse(text: string): { readonly types: Map<string, string>; readonly samples: Sample[] } {
  const types = new Map<string, string>()
  const samples: Sample[] = []
  let family = ''
  assert.ok(text.endsWith('\n'))
  for (const line of text.split('\n').slice(0, -1)) {
    const help = /^# HELP ([a-z_:][a-z0-9_:]*) (.+)$/.exec(line)
    const type = /^# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram)$/.exec(line)
    if (help) {
      assert.ok(!types.has(help[1] ?? ''), `${help[1]} comes once, with all its samples together`)
      family = help[1] ?? ''
    } else if (type) {
      assert.equal(type[1], family)
      types.set(family, type[2] ?? '')
    } else {
      const sample = /^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (-?(?:[0-9.]+(?:e[-+]?\d+)?|Inf)|[+]Inf|NaN)$/.exec(line)
      assert.ok(sample, line)
      const [, name = '', list = '', value = ''] = sample
      assert.equal(name.replace(types.get(family) === 'histogram' ? /_(?:bucket|sum|count)$/ : /$^/, ''), family)
      const labels = Object.fromEntries(
        [...list.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text]),
      )
      samples.push({ name, labels, value: Number(value.replace('Inf', 'Infinity')) })
    }
  }
  return { types, samples }
}

describe('/metrics', () => {
  let upstream: Server
  let proxy: ProxyProcess
  let port: number
  before(async () => {
    upstream = createServer((incoming, answer) => {
      answer.statusCode = incoming.url?.startsWith('/missing') ? 404 : 200
      answer.end('hello')
    }).listen(0, '127.0.0.1')
    await once(upstream, 'listening')
    port = await freePort()
    proxy = await ProxyProcess.start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: String((upstream.address() as AddressInfo).port),
      LISTEN_PORT: String(port),
      CIRCUIT_BREAKER_THRESHOLD: '5',
    })
    await proxy.ready()
  })
  after(async () => {
    await proxy.end()
    upstream.close()
  })
  const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).arrayBuffer()
  const scrape = async () => parse((await proxy.get('/metrics')).body)

  it('has the names and labels that other programs rely on', async () => {
    await get('/')
    await get('/missing')
    const { types, samples } = await scrape()
    const labelsOf = (family: string) =>
      [
        ...new Set(
          samples
            .filter(({ name }) => name.replace(/_(?:bucket|sum|count)$/, '') === family || name === family)
            .flatMap(({ labels }) => Object.keys(labels)),
        ),
      ].sort()
    const families = Object.fromEntries([...types].map(([name, type]) => [name, [type, ...labelsOf(name)].join(' ')]))
    assert.deepEqual(families, {
      ambassador_request_duration_seconds: 'histogram ambassador le status upstream',
      ambassador_request_duration: 'histogram ambassador le status upstream',
      ambassador_requests_total: 'counter ambassador status upstream',
      ambassador_request_failures_total: 'counter',
      ambassador_retries_total: 'counter ambassador outcome upstream',
      ambassador_attempts_total: 'counter ambassador upstream',
      ambassador_replays_total: 'counter ambassador upstream',
      ambassador_request_bytes_total: 'counter ambassador upstream',
      ambassador_response_bytes_total: 'counter ambassador upstream',
      ambassador_upgrades_total: 'counter ambassador upstream',
      ambassador_hedges_total: 'counter',
      ambassador_mirrored_total: 'counter',
      ambassador_egress_denied_total: 'counter ambassador upstream',
      ambassador_requests_active: 'gauge ambassador upstream',
      ambassador_inflight: 'gauge ambassador upstream',
      ambassador_queue_wait_seconds: 'histogram ambassador le upstream',
      ambassador_spans_total: 'counter',
      ambassador_circuit_state: 'gauge ambassador endpoint upstream',
      ambassador_endpoint_health: 'gauge',
      ambassador_endpoints: 'gauge ambassador state upstream',
      ambassador_connections: 'gauge ambassador side state upstream',
      ambassador_queue_full_total: 'counter ambassador upstream',
      ambassador_rate_limited_total: 'counter',
      ambassador_rate_delayed_total: 'counter',
      ambassador_fleet_sidecars: 'gauge',
      ambassador_paced_total: 'counter',
      ambassador_token_expiry_seconds: 'gauge',
      ambassador_tls_certificate_expiry_seconds: 'gauge',
      ambassador_discovery_failing: 'gauge ambassador upstream',
      ambassador_dns_age_seconds: 'gauge',
      ambassador_config_info: 'gauge ambassador generation hash',
      ambassador_config_rejected: 'gauge ambassador',
      ambassador_config_loads_total: 'counter result',
      ambassador_tls_reload_failures_total: 'counter',
      ambassador_eventloop_delay_seconds: 'gauge',
      ambassador_overloaded: 'gauge cause',
      ambassador_exhausted_dials_total: 'counter',
      process_cpu_seconds_total: 'counter',
      process_resident_memory_bytes: 'gauge',
      process_start_time_seconds: 'gauge',
      ambassador_build_info: 'gauge version',
    })
  })

  it('says the same as OpenMetrics to whoever asks for it', async () => {
    await get('/')
    const headers = { accept: 'application/openmetrics-text;version=1.0.0,text/plain;q=0.5' }
    const answer = await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`, { headers })
    assert.equal(answer.headers.get('content-type'), 'application/openmetrics-text; version=1.0.0; charset=utf-8')
    const lines = (await answer.text()).split('\n')
    assert.deepEqual(lines.slice(-2), ['# EOF', ''])
    const text = (await proxy.get('/metrics')).body.split('\n')
    // The names of samples and their labels are those of the text format, but for how a bound is written.
    const series = (of: readonly string[]) =>
      of.filter((line) => line !== '' && !line.startsWith('#')).map((line) => line.replace(/ \S+$/, ''))
    assert.deepEqual(
      series(lines).map((line) => line.replace(/(le="\d+)\.0"/, '$1"')),
      series(text),
    )
    const families = (of: readonly string[]) => of.filter((line) => line.startsWith('# TYPE '))
    assert.deepEqual(
      families(lines),
      families(text).map((line) => line.replace(/_total counter$/, ' counter')),
    )
  })

  it('counts requests by status, and each histogram agrees with the count', async () => {
    const before = (await scrape()).samples
    const startedAt = performance.now()
    for (let i = 0; i < 5; i++) await get('/')
    for (let i = 0; i < 3; i++) await get('/missing')
    const elapsedSeconds = (performance.now() - startedAt) / 1000
    const after = (await scrape()).samples
    const value = (samples: readonly Sample[], name: string, status: string, le?: string) =>
      samples.find((each) => each.name === name && each.labels['status'] === status && each.labels['le'] === le)
        ?.value ?? 0
    for (const [status, count] of [
      ['200', 5],
      ['404', 3],
    ] as const) {
      const more = (name: string, le?: string) => value(after, name, status, le) - value(before, name, status, le)
      assert.equal(more('ambassador_requests_total'), count)
      for (const name of ['ambassador_request_duration_seconds', 'ambassador_request_duration']) {
        assert.equal(more(`${name}_count`), count)
        assert.equal(more(`${name}_bucket`, '+Inf'), count)
        assert.ok(more(`${name}_sum`) > 0 && more(`${name}_sum`) < elapsedSeconds, 'one after the other')
        const buckets = after.filter((each) => each.name === `${name}_bucket` && each.labels['status'] === status)
        const cumulated = buckets.map((each) => each.value)
        assert.deepEqual(
          cumulated,
          [...cumulated].sort((a, b) => a - b),
        )
      }
    }
  })

  it('has histograms that a server of Prometheus accepts', async () => {
    await get('/')
    const { types, samples } = await scrape()
    const series = new Set(
      samples.map(({ name, labels }) => `${name} ${JSON.stringify(Object.entries(labels).sort())}`),
    )
    assert.equal(series.size, samples.length, 'no series comes twice')
    for (const [family, type] of types) {
      if (type !== 'histogram') continue
      const groups = new Map<string, Sample[]>()
      for (const sample of samples.filter(({ name }) => name === `${family}_bucket`)) {
        const { le: _, ...rest } = sample.labels
        const key = JSON.stringify(rest)
        groups.set(key, [...(groups.get(key) ?? []), sample])
      }
      for (const [key, buckets] of groups) {
        const bounds = buckets.map(({ labels }) => Number(labels['le']?.replace('Inf', 'Infinity')))
        assert.deepEqual(
          bounds,
          [...new Set(bounds)].sort((a, b) => a - b),
          family,
        )
        assert.equal(bounds.at(-1), Number.POSITIVE_INFINITY)
        const only = (name: string) =>
          samples.filter((each) => each.name === name && JSON.stringify(each.labels) === key).map(({ value }) => value)
        assert.deepEqual(only(`${family}_count`), [buckets.at(-1)?.value])
        assert.equal(only(`${family}_sum`).length, 1)
      }
    }
    for (const { name, labels } of samples.filter(({ name }) => types.get(name) === 'counter')) {
      assert.match(name, /_total$/, JSON.stringify(labels))
    }
  })

  it('gets no new series from what the application asks for', async () => {
    const before = (await scrape()).samples.length
    for (let i = 0; i < 200; i++) await get(`/${i}?user=${i}`)
    assert.equal((await scrape()).samples.length, before)
  })
})
