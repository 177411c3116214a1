/** Routes, a token that changes, and the page of the sidecar, as an application and a person meet them in a pod. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { browser, chromium } from '../helpers/browser.ts'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, deployment, httpTo, load, PATIENT, podTemplate, upstream } from './lib/manifests.ts'
import { type World, world } from './lib/world.ts'

const PORT = 8085
const URL = `http://localhost:${PORT}/`

const ACCOUNT_PORT = 8086
const AUDIENCE = 'https://vault.example.com'

/** The token that the application never sees. */
const token = (value: string): object => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'search-token' },
  stringData: { token: value },
})

const bearer = { bearer: { secretKeyRef: { name: 'search-token', key: 'token' } } }
/** An Ambassador of its own, with a token that the kubelet makes and a limit that all sidecars share. */
const account = ambassador('account', {
  ...httpTo('beta', ACCOUNT_PORT, { upstream: { auth: { serviceAccountToken: { audience: AUDIENCE } } } }),
  rateLimit: { requests: 100, per: '1s', perFleet: true },
})
const to = (host: string): object => ({ endpoints: [{ host, port: 8080 }], auth: bearer })

describe('routes on a real cluster', () => {
  let w: World
  const ends: (() => unknown)[] = []
  before(async () => {
    w = await world('e2e-routing')
    await w.kubectl.apply([
      token('first'),
      ...['stable', 'beta', 'india'].flatMap((name) => upstream(name, { env: { TEXT: name } })),
      ambassador('search', {
        protocol: 'HTTP',
        listen: { port: PORT },
        timeouts: PATIENT,
        upstreams: [
          { name: 'stable', ...to('stable') },
          { name: 'beta', ...to('beta') },
          { name: 'india', ...to('india'), circuitBreaker: { consecutiveFailures: 5, openDuration: '1s' } },
        ],
        routes: [
          { match: { headers: [{ name: 'X-User-Region', in: ['IN'] }] }, to: [{ upstream: 'india' }] },
          {
            match: {},
            to: [
              { upstream: 'stable', weight: 95 },
              { upstream: 'beta', weight: 5 },
            ],
            stickyOn: { header: 'X-User-Id' },
          },
        ],
      }),
      account,
      deployment('account', podTemplate('account', 'account')),
      ...load('caller', 'search', { url: URL, rate: 25, replicas: 2 }),
    ])
    for (const name of ['stable', 'beta', 'india', 'caller', 'account']) await w.kubectl.rollout(`deployment/${name}`)
    // A Service may know its pod a moment later than the rollout does.
    for (const region of ['IN', 'NO']) {
      const headers = { 'x-user-region': region }
      await eventually(`region ${region} is answered`, async () => (await burst({ count: 40, headers })).ok === 40)
    }
  })
  after(async () => {
    for (const end of ends.splice(0).reverse()) await end()
    await w?.close()
  })

  /** What `count` requests of one of the pods saw (scripts/burst.mjs). */
  const burst = async (of: Json, pod = 'deploy/caller'): Promise<Json> => {
    const result = await w.kubectl.exec(pod, ['node', '/scripts/burst.mjs', URL, JSON.stringify(of)])
    assert.equal(result.code, 0, result.stderr)
    return JSON.parse(result.stdout)
  }
  const callers = () => w.kubectl.pods('app=caller')
  const reports = async (): Promise<Json[]> =>
    Promise.all((await callers()).map(async (pod) => JSON.parse(await w.kubectl.lastLine(pod.metadata.name))))
  /** How many requests an upstream has seen with which credential. */
  const authorizations = async (name: string): Promise<Record<string, number>> => {
    const script = `fetch('http://localhost:8090').then(async (r) => console.log(await r.text()))`
    const { stdout } = await w.kubectl.exec(`deploy/${name}`, ['node', '-e', script], 'upstream')
    return JSON.parse(stdout).stats.authorization
  }

  // Five standard deviations of a binomial distribution: one false alarm in a million runs.
  const isFair = (part: number, count: number, share: number) =>
    Math.abs(part - count * share) <= 5 * Math.sqrt(count * share * (1 - share))

  it('shares requests out 95 to 5, by chance without a user and by user with one', async () => {
    const count = 3000
    const byChance = await burst({ count })
    assert.deepEqual([byChance.ok, byChance.failures], [count, {}])
    assert.ok(isFair(byChance.texts.beta, count, 0.05), `${byChance.texts.beta} of ${count} by chance`)
    const byUser = await burst({ count, headers: { 'x-user-id': 'user-{n}' } })
    assert.ok(isFair(byUser.texts.beta, count, 0.05), `${byUser.texts.beta} of ${count} users`)
    console.log(`    beta got ${byChance.texts.beta} of ${count} by chance, ${byUser.texts.beta} of ${count} users`)
  })

  it('gives a user the same side in every pod, every time', async () => {
    const pods = (await callers()).map((pod) => `pod/${pod.metadata.name}`)
    assert.equal(pods.length, 2)
    const of = { count: 400, headers: { 'x-user-id': 'user-{n}' }, lines: true }
    const sides: string[][] = []
    for (const pod of [...pods, ...pods]) sides.push((await burst(of, pod)).lines)
    assert.ok(sides[0]!.includes('beta') && sides[0]!.includes('stable'))
    for (const each of sides) assert.deepEqual(each, sides[0])
  })

  it('fails the requests of a shard that is down, and no others; its page says so to a person', async (t) => {
    const [pod] = await callers()
    const target = `pod/${pod.metadata.name}`
    const inIndia = { 'x-user-region': 'IN' }
    await w.kubectl.scale('deployment/india', 0)
    await eventually(
      'the shard is gone',
      async () => (await w.kubectl.get('pods', '-l', 'app=india')).items.length === 0,
    )
    const down = await eventually('its requests fail', async () => {
      const seen = await burst({ count: 100, headers: inIndia }, target)
      return seen.ok === 0 && seen
    })
    for (const key of Object.keys(down.failures))
      assert.match(key, /^50[234] (connect_refused|connect_timeout|circuit_open|budget_exhausted)$/)
    const [failing, others] = await Promise.all([
      burst({ count: 500, headers: inIndia }, target),
      burst({ count: 500 }, target),
    ])
    assert.equal(failing.ok, 0)
    assert.deepEqual([others.ok, others.failures], [500, {}])

    if (chromium() === undefined && process.env['CI'] !== 'true') t.diagnostic('chromium is not installed: no page')
    else await looksAtThePage(target)

    await w.kubectl.scale('deployment/india', 1)
    await w.kubectl.rollout('deployment/india')
    await eventually('the shard is back', async () => {
      const seen = await burst({ count: 50, headers: inIndia }, target)
      return seen.ok === 50
    })
  })

  it('sends a token of the service account that is for the audience and of the pod', async () => {
    const url = `http://localhost:${ACCOUNT_PORT}/`
    const { stdout, stderr } = await w.kubectl.exec('deploy/account', ['wget', '-qO-', url])
    const { authorization } = stdout === '' ? assert.fail(stderr) : (JSON.parse(stdout) as Json)
    const [, claims = ''] = /^Bearer [\w-]+\.([\w-]+)\.[\w-]+$/.exec(authorization) ?? []
    const { aud, sub, ...others } = JSON.parse(String(Buffer.from(claims, 'base64url')))
    assert.deepEqual(aud, [AUDIENCE])
    assert.equal(sub, 'system:serviceaccount:e2e-routing:default')
    const [pod] = await w.kubectl.pods('app=account')
    assert.equal(others['kubernetes.io'].pod.uid, pod.metadata.uid)
  })

  it('tells every sidecar of a scaled workload among how many a limit is shared', async () => {
    const metrics = ['wget', '-qO-', 'http://127.0.0.1:14990/metrics']
    const sharedAmong = (count: number) =>
      eventually(`${count} sidecars share the limit among ${count}`, async () => {
        const pods = await w.kubectl.pods('app=account')
        const said = await Promise.all(
          pods.map(async ({ metadata }) => (await w.kubectl.exec(`pod/${metadata.name}`, metrics)).stdout),
        )
        const line = `ambassador_fleet_sidecars{ambassador="account"} ${count}\n`
        return pods.length === count && said.every((text) => text.includes(line))
      })
    await sharedAmong(1)
    await w.kubectl.scale('deployment/account', 2)
    await sharedAmong(2)
  })

  const looksAtThePage = async (target: string): Promise<void> => {
    const forward = await w.kubectl.portForward(target, 14991)
    ends.push(forward.close)
    const page = await (await browser(ends)).newPage()
    const faults: string[] = []
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warn') faults.push(message.text())
    })
    page.on('pageerror', (error) => faults.push(String(error)))
    await page.goto(`http://127.0.0.1:${forward.port}/`)
    await page.waitForSelector('table')
    const state = () => page.$eval('#state', (node) => node.textContent ?? '')
    const text = () => page.$eval('body', (node) => node.textContent ?? '')
    assert.match(await text(), new RegExp(target.slice('pod/'.length)), 'the page names its pod')
    for (const name of ['stable', 'beta', 'india']) assert.match(await text(), new RegExp(`upstream ${name}`))
    // The load of the pod goes on, so there is a rate without anybody's reload.
    await page.waitForFunction("/[1-9][0-9.]*[/]s/.test(document.querySelector('main').textContent)", {
      timeout: 30_000,
    })
    await eventually('the circuit of the shard is open on the page', async () => {
      await burst({ count: 20, headers: { 'x-user-region': 'IN' } }, target)
      const states = await page.$$eval('table', (tables) =>
        tables.map((table) => [table.caption?.textContent ?? '', table.querySelector('tbody')?.textContent ?? '']),
      )
      const of = (name: string) => states.find(([caption]) => caption?.endsWith(` ${name}`))?.[1] ?? ''
      return /open/.test(of('india')) && (await state()) === '1 of 3 endpoints down'
    })
    assert.deepEqual(faults, [])
  }

  it('sends a token that was rotated under load, without a failed request', async () => {
    assert.deepEqual(Object.keys(await authorizations('stable')), ['Bearer first'])
    const before = await reports()
    await w.kubectl.apply([token('second')])
    // Kubelets look at Secrets every minute or so, and when the pod changes.
    await eventually(
      'the new token is sent',
      async () => {
        for (const { metadata } of await callers())
          await w.kubectl.annotate(`pod/${metadata.name}`, { 'example.com/rotated': `${Date.now()}` })
        return (await authorizations('stable'))['Bearer second']! > 0
      },
      { timeoutMs: 120_000, everyMs: 1000 },
    )
    // Both pods, and then the old one never again.
    let old = -1
    await eventually(
      'the old token is not sent any more',
      async () => {
        const now = await authorizations('stable')
        const isOver = now['Bearer first'] === old && now['Bearer second']! > 100
        old = now['Bearer first']!
        return isOver
      },
      { timeoutMs: 120_000, everyMs: 1000 },
    )
    for (const [i, report] of (await reports()).entries()) {
      assert.ok(report.ok > before[i].ok)
      assert.equal(report.failed, before[i].failed, JSON.stringify(report.failures))
    }
  })
})
