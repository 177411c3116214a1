import assert from 'node:assert/strict'
import { request } from 'node:http'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { after, describe, it } from 'node:test'
import { adminServer } from '../../../proxy/observe/admin.ts'
import type { HttpServer } from '../../../proxy/observe/http-server.ts'
import { telemetryServer } from '../../../proxy/observe/telemetry.ts'
import type { UpstreamsReport } from '../../../proxy/observe/upstreams.ts'
import { heldByHeads } from '../../../proxy/protocol/http1/head-reader.ts'

interface Ask {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  readonly host?: string
}

function ask(port: number, path: string, { method = 'GET', headers = {}, body = '', host = '127.0.0.1' }: Ask = {}) {
  return new Promise<{ status: number; body: string; headers: Record<string, unknown> }>((resolve, reject) => {
    const outgoing = request({ host, port, path, method, headers, agent: false }, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => (text += chunk))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: text, headers: answer.headers }))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const servers: HttpServer[] = []
after(() => Promise.all(servers.map((server) => server.close())))

async function telemetry(unready: readonly string[] = []) {
  const configz = { version: '1', pod: null, startedAt: 't', ambassadors: [] }
  const server = telemetryServer({
    unready: () => unready,
    unknownUpstreams: () => null,
    configz: () => configz,
    metrics: (format) => `${format} 1\n`,
  })
  servers.push(server)
  await server.listen(0, 'any', 'telemetry')
  return server.port
}

async function admin() {
  const calls: string[] = []
  const report: UpstreamsReport = {
    version: '1',
    pod: null,
    zone: null,
    startedAt: 't',
    isDraining: false,
    logLevel: 'info',
    ambassadors: [],
  }
  const server = adminServer({
    upstreams: () => report,
    drain: () => calls.push('drain'),
    quit: () => calls.push('quit'),
    setCircuit: ({ to, upstream, ambassador, endpoint }) => {
      calls.push([to, upstream, ambassador, endpoint].join(' '))
      return upstream === 'live' ? 2 : 'there is no such upstream'
    },
    setLogLevel: (level) => calls.push(level),
  })
  servers.push(server)
  await server.listen(0, 'loopback', 'admin')
  return { port: server.port, calls }
}

/**
 * An address of this machine that the admin port is not on. One with loopback alone still has all of 127.0.0.0/8 (RFC 1122 3.2.1.3),
 * and a server that listens on 127.0.0.1 does not answer on the others.
 */
const outside =
  Object.values(networkInterfaces())
    .flat()
    .find((each) => each?.family === 'IPv4' && !each.internal)?.address ?? '127.0.0.2'

describe('the telemetry port', () => {
  it('answers liveness, readiness, metrics and configz', async () => {
    const port = await telemetry()
    assert.deepEqual((await ask(port, '/livez')).status, 200)
    assert.deepEqual((await ask(port, '/readyz')).body, 'ok\n')
    const metrics = await ask(port, '/metrics')
    assert.equal(metrics.body, 'Prometheus 1\n')
    assert.equal(metrics.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
    const open = await ask(port, '/metrics', { headers: { Accept: 'application/openmetrics-text; version=1.0.0' } })
    assert.equal(open.body, 'OpenMetrics 1\n')
    assert.equal(open.headers['content-type'], 'application/openmetrics-text; version=1.0.0; charset=utf-8')
    const configz = await ask(port, '/configz')
    assert.equal(configz.headers['content-type'], 'application/json')
    assert.deepEqual(JSON.parse(configz.body), { version: '1', pod: null, startedAt: 't', ambassadors: [] })
  })

  it('says why it is not ready', async () => {
    const port = await telemetry(["ambassador 'a': no", "ambassador 'b': no"])
    const answer = await ask(port, '/readyz')
    assert.equal(answer.status, 503)
    assert.equal(answer.body, "ambassador 'a': no\nambassador 'b': no\n")
  })

  it('is read-only: every other method is 405 on every path, every other path is 404', async () => {
    const port = await telemetry()
    for (const path of ['/livez', '/readyz', '/metrics', '/configz']) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']) {
        const answer = await ask(port, path, { method })
        assert.equal(answer.status, 405, `${method} ${path}`)
        assert.equal(answer.headers['allow'], 'GET, HEAD')
      }
      const head = await ask(port, path, { method: 'HEAD' })
      assert.equal(head.status, 200)
      assert.equal(head.body, '')
      assert.ok(Number(head.headers['content-length']) > 0)
    }
    for (const path of ['/', '/drain', '/quitquitquit', '/loglevel', '/upstreams', '/toString', '/livez/']) {
      assert.equal((await ask(port, path)).status, 404, path)
      assert.equal((await ask(port, path, { method: 'POST' })).status, 404, path)
    }
  })

  it('is on all addresses', async () => {
    const port = await telemetry()
    assert.equal((await ask(port, '/livez', { host: outside })).status, 200)
    assert.equal((await ask(port, '/livez', { host: '127.0.0.1' })).status, 200)
    assert.equal((await ask(port, '/livez', { host: '::1' })).status, 200)
  })

  it('says whose port it is that is taken', async () => {
    const port = await telemetry()
    const second = telemetryServer({
      unready: () => [],
      unknownUpstreams: () => null,
      configz: () => ({}) as never,
      metrics: () => '',
    })
    await assert.rejects(second.listen(port, 'any', 'telemetry'), {
      name: 'ServerPortError',
      message: `telemetry: port ${port} is in use by another process of this pod, use another port`,
    })
  })
})

describe('the admin port', () => {
  it('is on loopback alone', async () => {
    const { port } = await admin()
    for (const host of ['127.0.0.1', '::1']) assert.equal((await ask(port, '/upstreams', { host })).status, 200)
    await assert.rejects(ask(port, '/upstreams', { host: outside }), { code: 'ECONNREFUSED' })
  })

  it('shows a page that loads nothing from elsewhere and whose policy names its script and style', async () => {
    const { port } = await admin()
    const page = await ask(port, '/')
    assert.equal(page.status, 200)
    assert.equal(page.headers['content-type'], 'text/html; charset=utf-8')
    assert.doesNotMatch(page.body.replace('<link rel="icon" href="data:,">', ''), /https?:|\bsrc=|<link|@import|url\(/)
    const { createHash } = await import('node:crypto')
    for (const [tag, directive] of [
      ['script', 'script-src'],
      ['style', 'style-src'],
    ] as const) {
      const text = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(page.body)?.[1] ?? ''
      const hash = createHash('sha256').update(text).digest('base64')
      assert.ok(String(page.headers['content-security-policy']).includes(`${directive} 'sha256-${hash}'`), tag)
    }
  })

  it('drains, quits and changes the log level', async () => {
    const { port, calls } = await admin()
    assert.equal((await ask(port, '/drain', { method: 'POST' })).status, 202)
    assert.equal((await ask(port, '/quitquitquit', { method: 'POST' })).status, 202)
    assert.equal((await ask(port, '/loglevel', { method: 'PUT', body: 'debug\n' })).status, 200)
    assert.deepEqual(calls, ['drain', 'quit', 'debug'])
  })

  it('sets the circuits of an upstream, of one endpoint or one Ambassador, and names what is wrong', async () => {
    const { port, calls } = await admin()
    const set = (query: string, body: string) => ask(port, `/circuit${query}`, { method: 'PUT', body })
    assert.equal((await set('?upstream=live', 'open\n')).body, 'open: 2 endpoints\n')
    assert.equal((await set('?upstream=live&ambassador=a&endpoint=10.0.0.1:80', 'auto')).status, 200)
    assert.deepEqual(calls.splice(0), ['open live  ', 'auto live a 10.0.0.1:80'])
    for (const [query, body, status, says] of [
      ['?upstream=live', 'half', 400, "'half' is not a state, use open, closed, auto\n"],
      ['', 'open', 400, 'no upstream is named, use /circuit?upstream=NAME\n'],
      ['?upstream=other', 'open', 404, 'there is no such upstream\n'],
    ] as const) {
      const answer = await set(query, body)
      assert.deepEqual([answer.status, answer.body], [status, says])
    }
    assert.equal((await ask(port, '/circuit', { method: 'POST' })).status, 405)
  })

  it('refuses a log level that it does not have, with those that it has', async () => {
    const { port, calls } = await admin()
    const answer = await ask(port, '/loglevel', { method: 'PUT', body: 'loud' })
    assert.equal(answer.status, 400)
    assert.equal(answer.body, "'loud' is not a log level, use debug, info, warn, error\n")
    assert.equal((await ask(port, '/loglevel', { method: 'PUT', body: 'x'.repeat(2000) })).status, 413)
    assert.deepEqual(calls, [])
  })

  it('answers the wrong method with 405', async () => {
    const { port, calls } = await admin()
    for (const [method, path, allow] of [
      ['GET', '/drain', 'POST'],
      ['GET', '/quitquitquit', 'POST'],
      ['POST', '/loglevel', 'PUT'],
      ['POST', '/', 'GET, HEAD'],
      ['DELETE', '/upstreams', 'GET, HEAD'],
    ] as const) {
      const answer = await ask(port, path, { method })
      assert.equal(answer.status, 405)
      assert.equal(answer.headers['allow'], allow)
    }
    assert.equal((await ask(port, '/metrics')).status, 404)
    assert.deepEqual(calls, [])
  })

  it('refuses what a page of another origin makes a browser send', async () => {
    const { port, calls } = await admin()
    const foreign: readonly Record<string, string>[] = [
      // DNS rebinding: the name of the page resolves to 127.0.0.1.
      { host: `evil.example:${port}` },
      { host: `localhost.evil.example:${port}` },
      { host: `127.0.0.1.evil.example:${port}` },
      // A form or a fetch of a page elsewhere.
      { host: `localhost:${port}`, origin: 'http://evil.example' },
      { host: `localhost:${port}`, origin: 'null' },
      { host: `localhost:${port}`, origin: 'http://localhost:1' },
      { host: `localhost:${port}`, 'sec-fetch-site': 'cross-site' },
      { host: `localhost:${port}`, 'sec-fetch-site': 'same-site' },
    ]
    for (const headers of foreign) {
      const answer = await ask(port, '/quitquitquit', { method: 'POST', headers })
      assert.equal(answer.status, 403, JSON.stringify(headers))
    }
    assert.equal((await ask(port, '/upstreams', { headers: { host: 'evil.example' } })).status, 403)
    assert.deepEqual(calls, [])
  })

  it('takes the page itself, and a port that somebody forwarded', async () => {
    const { port, calls } = await admin()
    const headers = { host: 'localhost:4321', origin: 'http://localhost:4321', 'sec-fetch-site': 'same-origin' }
    assert.equal((await ask(port, '/drain', { method: 'POST', headers })).status, 202)
    assert.equal((await ask(port, '/', { headers: { host: '[::1]:4321' } })).status, 200)
    assert.deepEqual(calls, ['drain'])
  })

  it('refuses a request without a Host', async () => {
    const { port } = await admin()
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => socket.write('GET /upstreams HTTP/1.0\r\n\r\n'))
      let all = ''
      socket.on('data', (chunk) => (all += chunk))
      socket.on('end', () => resolve(all))
      socket.on('error', reject)
    })
    assert.match(text, /^HTTP\/1\.1 403 /)
  })
})

it('a client that leaves in the middle of a head leaves nothing behind', { timeout: 60_000 }, async () => {
  const port = await telemetry()
  const leaving = connect(port, '127.0.0.1')
  leaving.write('GET /livez HT')
  while (heldByHeads() === 0) await new Promise((resolve) => setImmediate(resolve))
  leaving.destroy()
  while (heldByHeads() > 0) await new Promise((resolve) => setImmediate(resolve))
  assert.equal((await ask(port, '/livez')).status, 200)
})

it('clients that hold connections open keep nobody out', { timeout: 60_000 }, async () => {
  const port = await telemetry()
  const holding = Array.from({ length: 80 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  const closed = new Promise((resolve) => holding[0]?.once('close', resolve))
  assert.equal((await ask(port, '/livez')).status, 200)
  await closed
  for (const socket of holding) socket.destroy()
})
