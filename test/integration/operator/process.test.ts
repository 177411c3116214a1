import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { dump, loadAll } from 'js-yaml'
import { crd } from '../../../operator/api/crd.ts'
import { type Cluster, clusterForTests } from '../../cluster/cluster.ts'
import { eventually, execute, type Json, Kubectl } from '../../e2e/lib/kubectl.ts'
import { programArgs } from '../../helpers/built.ts'

// The operator as a process of its own with a kubeconfig, and the webhook configuration of the chart, which selects no
// namespace here: its certificate is still issued, patched in and served.

const NAMESPACE = 'test-operator-process'
let program: readonly string[]

interface Running {
  readonly child: ChildProcess
  readonly lines: Json[]
  readonly exit: Promise<number | null>
  /** Of the HTTP port. */
  get(path: string): Promise<{ status: number; text: string }>
}

let cluster: Cluster
let kubectl: Kubectl
let configuration: Json
let ownsDefinition = false
const running = new Set<ChildProcess>()

function start(env: Record<string, string>, preload = ''): Running {
  const args = preload === '' ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`]
  const child = spawn(process.execPath, [...args, ...program], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], KUBECONFIG: cluster.kubeconfig, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  running.add(child)
  const lines: Json[] = []
  createInterface({ input: child.stdout! }).on('line', (line) => lines.push(JSON.parse(line)))
  return {
    child,
    lines,
    exit: new Promise((resolve) => {
      child.once('exit', (code) => {
        running.delete(child)
        resolve(code)
      })
    }),
    async get(path) {
      const port = lines.find((line) => line.msg === 'operator started')?.port
      const response = await fetch(`http://127.0.0.1:${port}${path}`)
      return { status: response.status, text: await response.text() }
    },
  }
}

const ENV = {
  POD_NAME: 'op',
  POD_NAMESPACE: NAMESPACE,
  AMBASSADOR_PROXY_IMAGE: 'ambassador-proxy:test',
  AMBASSADOR_HTTP_PORT: '0',
  AMBASSADOR_WEBHOOK_PORT: '0',
  // Long enough for a test that stands still meanwhile to see that it serves on.
  AMBASSADOR_SHUTDOWN_DELAY_SECONDS: '3',
}

const isReady = (operator: Running) => async (): Promise<boolean> => (await operator.get('/readyz')).status === 200

const holder = async (): Promise<string> =>
  (await kubectl.get('lease', 'ambassador-operator')).spec.holderIdentity ?? ''

before(async () => {
  program = await programArgs(['operator/main.ts'])
  cluster = await clusterForTests()
  kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, NAMESPACE)
  await kubectl.freshNamespace(NAMESPACE)
  if (!(await kubectl.exists('crd/ambassadors.ambassador.dev'))) {
    ownsDefinition = true
    await kubectl.run(['create', '-f', '-'], { input: dump(crd(), { noRefs: true }) })
  }
  const args = ['template', 'ambassador', 'charts/ambassador', '--namespace', NAMESPACE, '--kube-version', '1.34.0']
  const { stdout } = await execute(cluster.binaries.helm, [...args, '--show-only', 'templates/webhook.yaml'])
  configuration = (loadAll(stdout) as Json[]).find((object) => object?.kind === 'MutatingWebhookConfiguration')
  for (const webhook of configuration.webhooks)
    webhook.namespaceSelector = { matchLabels: { 'test.ambassador.dev/none': 'none' } }
})

after(async () => {
  for (const child of running) child.kill('SIGKILL')
  await kubectl.run(['delete', 'mutatingwebhookconfiguration', configuration.metadata.name, '--ignore-not-found'])
  await kubectl.remove(`namespace/${NAMESPACE}`)
  if (ownsDefinition) await kubectl.delete('crd/ambassadors.ambassador.dev')
})

describe('the process of the operator', { timeout: 600_000 }, () => {
  it('ends with a sentence that names the variable when a setting cannot be used', async () => {
    const operator = start({ ...ENV, AMBASSADOR_HTTP_PORT: '70000' })
    assert.equal(await operator.exit, 1)
    assert.deepEqual(
      operator.lines.map(({ level, msg, reason }) => ({ level, msg, reason })),
      [
        {
          level: 'error',
          msg: 'settings cannot be used',
          reason: "AMBASSADOR_HTTP_PORT: '70000' cannot be used, use a whole number from 0 to 65535",
        },
      ],
    )
  })

  it('is alive at once, ready when caches are synced and its certificate is known, and leaves in order', async () => {
    const operator = start(ENV)
    await eventually('alive', async () => (await operator.get('/livez')).status === 200, { everyMs: 50 })
    const early = await eventually('not ready for want of a webhook configuration', async () => {
      const { status, text } = await operator.get('/readyz')
      return status === 503 && text.split('\n').length === 2 && text
    })
    assert.equal(early, 'the certificate of the webhook is not served and known yet\n')
    await kubectl.apply([configuration])
    await eventually('ready', isReady(operator), { timeoutMs: 120_000 })
    await eventually('leading', async () => /^op_/.test(await holder()))
    const { text } = await operator.get('/metrics')
    for (const name of [
      'ambassador_leader 1',
      'ambassador_watch_staleness_seconds{resource="ambassadors"}',
      'ambassador_watch_staleness_seconds{resource="pods-injected"}',
      'ambassador_workqueue_depth{queue="reconcile"}',
      'ambassador_reconcile_duration_seconds_count',
      'ambassador_webhook_certificate_expiry_seconds{certificate="leaf"}',
      'ambassador_unhandled_errors_total 0',
      'process_resident_memory_bytes',
    ]) {
      assert.ok(text.includes(`\n${name}`), `${name} is not among the metrics`)
    }
    const started = performance.now()
    operator.child.kill('SIGTERM')
    await eventually(
      'not ready while it serves on',
      async () => (await operator.get('/readyz')).text.includes('stopping'),
      { everyMs: 20, timeoutMs: 2500 },
    )
    assert.equal(await operator.exit, 0)
    const tookMs = performance.now() - started
    assert.ok(tookMs > 2900 && tookMs < 30_000, `${Math.round(tookMs)} ms`)
    assert.equal(await holder(), '')
    assert.equal(operator.lines.at(-1).msg, 'operator stopped')
  })

  it('goes on after a promise that nobody waited for, counts it, and is replaced in order after an exception', async () => {
    const preload = `process.on('SIGUSR2', () => Promise.reject(new Error('lost'))); process.on('SIGWINCH', () => { throw new Error('cut') })`
    const operator = start(ENV, preload)
    await eventually(
      'ready',
      async () => operator.lines.some(({ msg }) => msg === 'operator started') && (await isReady(operator)()),
      { timeoutMs: 120_000 },
    )
    await eventually('leading', async () => /^op_/.test(await holder()))
    operator.child.kill('SIGUSR2')
    await eventually('counted', async () =>
      (await operator.get('/metrics')).text.includes('\nambassador_unhandled_errors_total 1'),
    )
    assert.equal((await operator.get('/readyz')).status, 200)
    const lost = operator.lines.find(({ msg }) => msg === 'a promise was rejected and nobody waited for it')
    assert.equal(lost.err.message, 'lost')
    assert.ok(lost.err.stack)
    operator.child.kill('SIGWINCH')
    assert.equal(await operator.exit, 1)
    assert.equal(await holder(), '', 'the lease is given back')
  })
})
