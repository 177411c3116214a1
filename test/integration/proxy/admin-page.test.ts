/** The page of the admin port in Chromium, over a sidecar as it runs in a pod. UPDATE_SCREENSHOT=1 writes docs/images/admin-page.png. */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Browser, Page } from 'puppeteer-core'
import { adminServer } from '../../../proxy/observe/admin.ts'
import type { UpstreamsReport } from '../../../proxy/observe/upstreams.ts'
import { browser, chromium } from '../../helpers/browser.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const ends = endsOfEach()

const skip = chromium() === undefined && process.env['CI'] !== 'true' && 'chromium is not installed'

/** One for all: it takes longer to start than a test takes. Each has a page of its own. */
let chrome: Browser

async function open(url: string, colors: 'light' | 'dark' = 'light') {
  const page = await chrome.newPage()
  page.setDefaultTimeout(90_000)
  ends.push(() => page.close())
  const faults: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warn') faults.push(message.text())
  })
  page.on('pageerror', (error) => faults.push(String(error)))
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: colors }])
  await page.goto(url)
  return { page, faults }
}

/** Resolves when the text of the page fits. */
const shows = (page: Page, text: string) =>
  page.waitForFunction(
    `document.querySelector('header').textContent.includes(${JSON.stringify(text)}) || document.querySelector('main').textContent.includes(${JSON.stringify(text)})`,
    { timeout: 90_000 },
  )

function report(name: string): UpstreamsReport {
  const upstream = {
    name,
    discoveryFailure: name,
    tlsFailure: null,
    credentialFailure: null,
    connections: { used: 1, max: 2, waiting: 0 },
    http: null,
    endpoints: [
      {
        name,
        host: name,
        zone: name,
        weight: 1,
        priority: 0,
        active: 0,
        attempts: 1,
        failures: 0,
        circuit: 'closed',
        isCircuitForced: false,
        health: 'healthy',
        lastError: { reason: name, message: name, at: name },
      },
    ],
  }
  const ambassador = {
    namespace: name,
    name,
    protocol: 'TCP',
    listening: [name],
    hash: name,
    generation: 1,
    since: name,
    rejected: name,
    lastError: { reason: name, message: name, at: name },
    connections: { open: 0, busy: 0 },
    answers: { [name]: 1 },
    rateLimited: 0,
    upstreams: [upstream],
  }
  return {
    version: name,
    pod: name,
    zone: name,
    startedAt: name,
    isDraining: false,
    logLevel: name,
    ambassadors: [ambassador],
  }
}

describe('the admin page in a browser', { skip, timeout: 240_000 }, () => {
  const last: (() => unknown)[] = []
  before(async () => {
    chrome = await browser(last)
  })
  after(async () => {
    for (const end of last) await end()
  })

  it('shows what happens without a reload, and no fault', async () => {
    let status = 200
    const upstream = await scriptedUpstream(ends, () => (status === 200 ? ok() : withStatus(status)))
    const port = await freePort()
    const proxy = await ProxyProcess.start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: String(upstream.port),
      LISTEN_PORT: String(port),
      RETRY_MAX: '0',
      CIRCUIT_BREAKER_THRESHOLD: '3',
    })
    ends.push(() => proxy.end())
    await proxy.ready()
    const get = async () => (await fetch(`http://127.0.0.1:${port}/`)).arrayBuffer()
    const { page, faults } = await open(`http://127.0.0.1:${proxy.adminPort}/`)
    await page.waitForSelector('.card')
    await page.evaluate(() => {
      ;(globalThis as unknown as { isSame: boolean }).isSame = true
    })
    assert.equal(await page.$eval('#state', (node) => node.textContent), 'serving')
    for (let i = 0; i < 20; i++) await get()
    await shows(page, '200 × 20')
    status = 503
    for (let i = 0; i < 3; i++) await get()
    await shows(page, 'open')
    await shows(page, '1 of 1 endpoints down')
    await shows(page, 'answer: status 503')
    assert.equal(await page.$eval('tbody td .bad', (node) => node.textContent), 'open')
    assert.ok(await page.evaluate(() => (globalThis as unknown as { isSame: boolean }).isSame), 'it was never reloaded')
    const { body } = await proxy.admin('GET', '/upstreams')
    const [live] = JSON.parse(body).ambassadors[0].upstreams
    assert.equal(live.http.requests, 23)
    assert.equal(live.http.failures, 3)
    assert.equal(live.http.active, 0)
    assert.equal(
      live.http.durations.counts.reduce((sum: number, each: number) => sum + each, 0),
      23,
    )
    assert.equal(live.endpoints[0].circuit, 'open')
    await proxy.admin('POST', '/drain')
    await shows(page, 'draining')
    assert.equal(faults.join(), '')
    proxy.kill('SIGKILL')
    await shows(page, 'the sidecar does not answer')
    assert.deepEqual(
      faults.filter((text) => !text.includes('net::ERR_')),
      [],
    )
  })

  it('shows HTML in a value as text, and fits a phone', async () => {
    const hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    const server = adminServer({
      upstreams: () => report(hostile),
      setCircuit: () => 0,
      drain() {},
      quit() {},
      setLogLevel() {},
    })
    await server.listen(0, 'loopback', 'admin')
    ends.push(() => server.close())
    const { page, faults } = await open(`http://127.0.0.1:${server.port}/`)
    await page.setViewport({ width: 360, height: 740 })
    await page.waitForSelector('.card')
    assert.equal(await page.title(), 'ambassador')
    assert.equal(await page.$$eval('main img, main script', (nodes) => nodes.length), 0)
    assert.ok((await page.$eval('h3', (node) => node.textContent)) === hostile)
    const width = Number(await page.evaluate('document.documentElement.scrollWidth'))
    assert.ok(width <= 360, `${width} pixels wide`)
    assert.deepEqual(faults, [])
  })

  it('names its tables and says changes politely', async () => {
    const server = adminServer({
      upstreams: () => report('plain'),
      setCircuit: () => 0,
      drain() {},
      quit() {},
      setLogLevel() {},
    })
    await server.listen(0, 'loopback', 'admin')
    ends.push(() => server.close())
    const { page } = await open(`http://127.0.0.1:${server.port}/`, 'dark')
    await page.waitForSelector('table')
    assert.equal(await page.$eval('caption', (node) => node.textContent), 'Endpoints of upstream plain')
    assert.deepEqual(await page.$$eval('thead th', (cells) => [...new Set(cells.map((cell) => cell.scope))]), ['col'])
    assert.equal(await page.$eval('tbody th', (cell) => cell.scope), 'row')
    assert.equal(await page.$eval('#state', (node) => node.getAttribute('aria-live')), 'polite')
    const background = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert.equal(background, 'rgb(15, 19, 25)', 'dark where the person wants it dark')
  })

  it('shows rates and latencies of what goes on', async () => {
    const hits = { count: 0 }
    const upstream = await scriptedUpstream(ends, async () => {
      hits.count++
      await new Promise((resolve) => setTimeout(resolve, 3 + (hits.count % 17)))
      return hits.count % 60 === 0 ? withStatus(500) : ok()
    })
    const port = await freePort()
    const proxy = await ProxyProcess.start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: String(upstream.port),
      LISTEN_PORT: String(port),
      RETRY_MAX: '0',
      CIRCUIT_BREAKER_THRESHOLD: '3',
      POD_NAME: 'checkout-7d9f-x2k4p',
    })
    ends.push(() => proxy.end())
    await proxy.ready()
    let isOver = false
    const load = (async () => {
      while (!isOver) await (await fetch(`http://127.0.0.1:${port}/`)).arrayBuffer()
    })()
    const { page } = await open(`http://127.0.0.1:${proxy.adminPort}/`)
    await page.setViewport({ width: 1000, height: 370, deviceScaleFactor: 2 })
    await page.waitForFunction("/[1-9][0-9.]*[/]s/.test(document.querySelector('main').textContent)")
    const facts = await page.$$eval('dl div', (all) => all.map((each) => each.textContent ?? ''))
    assert.match(
      facts.join(' | '),
      /^Requests[0-9.]+\/s \| Failures[0-9.]+\/s \| p50 below[0-9.]+ m?s \| p99 below[0-9.]+ m?s \| In flight\d+ \| Connections\d+ \/ 1024 \| Waiting0$/,
    )
    if (process.env['UPDATE_SCREENSHOT'] === '1') {
      const directory = join(import.meta.dirname, '../../../docs/images')
      mkdirSync(directory, { recursive: true })
      await page.screenshot({ path: join(directory, 'admin-page.png') as `${string}.png` })
    }
    isOver = true
    await load
  })
})
