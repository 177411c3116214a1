/** `npm run demo`: what an application sees of a payment provider that fails, with the product's real parts and no cluster. */
import { createServer } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Annotation, PRODUCT_VERSION } from '../../common/names.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { configMapOf } from '../../operator/render/objects.ts'
import { problemText } from '../../operator/render/problems.ts'
import { render } from '../../operator/render/render.ts'
import { injectable } from '../../operator/webhook/ambassador.ts'
import type { JsonObject } from '../../operator/webhook/json.ts'
import { NODE_FLAGS } from '../proxy-process.ts'
import { Admission } from './admission.ts'
import { Application, count } from './application.ts'
import { EXAMPLE, type Example, forProvider, OPEN_MS, readExample } from './example.ts'
import { type InjectedPod, Sidecar } from './pod.ts'
import { PROVIDER_NAME, Provider } from './provider.ts'
import { duration, Story } from './story.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const NAMESPACE = 'shop'

function publish(ambassador: Ambassador) {
  const { config, problems } = render({ ambassador })
  if (config === null) throw new Error(`${EXAMPLE}: ${problems.map(problemText).join('; ')}`)
  return { config, configMap: configMapOf(ambassador, config) }
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

/** A value of the sidecar's own metrics, the sum over its series with these labels. */
async function metric(port: number, name: string, labels: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`) && line.includes(labels))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function demo(story: Story, example: Example): Promise<void> {
  const provider = new Provider()
  await provider.start()
  const [listenPort, telemetryPort, adminPort] = [await freePort(), await freePort(), await freePort()]

  story.heading(`1. The operator renders ${EXAMPLE}`)
  const place = { listenPort, host: '127.0.0.1', port: provider.port, serverName: PROVIDER_NAME }
  const rendered = forProvider(example, place)
  const ambassador = { ...rendered, metadata: { ...rendered.metadata, namespace: NAMESPACE, generation: 1 } }
  const { config, configMap } = publish(ambassador)
  story.say(
    `Ambassador '${ambassador.metadata.name}' becomes ConfigMap '${configMap.metadata.name}', hash ${config.hash}.`,
  )
  story.say(
    `For this machine: upstream https://127.0.0.1:${provider.port} with a private CA, port ${listenPort}, breaker open for ${duration(OPEN_MS)}.`,
  )

  story.heading('2. The webhook injects the pod of the Deployment')
  const status = { config: { hash: config.hash, configMapName: configMap.metadata.name, generation: 1 } }
  const admission = new Admission(
    NAMESPACE,
    [injectable({ ...ambassador, status } as Ambassador)],
    `ambassador-proxy:${PRODUCT_VERSION}`,
  )
  await admission.start()
  const metadata = example.deployment['metadata'] as JsonObject
  const annotations = { [Annotation.inject]: 'payments' }
  const workload = await admission.create(
    { ...example.deployment, metadata: { ...metadata, annotations } },
    'workloads',
  )
  story.say(`kubectl annotate deployment checkout ${Annotation.inject}=payments`)
  story.patch(workload.patch)
  const { template } = workload.object['spec'] as { template: { metadata: JsonObject; spec: JsonObject } }
  // A free port of this machine for each of the sidecar's own two, as any pod may ask for.
  const ownPorts = { [Annotation.telemetryPort]: String(telemetryPort), [Annotation.adminPort]: String(adminPort) }
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...template.metadata,
      name: 'checkout-demo',
      namespace: NAMESPACE,
      annotations: { ...(template.metadata['annotations'] as JsonObject), ...ownPorts },
    },
    spec: template.spec,
  }
  const admitted = await admission.create(pod, 'pods')
  admission.stop()
  story.say(
    `The pod, as the API server would store it (${admitted.patch.length} operations, ${duration(admitted.durationMs)}):`,
  )
  story.patch(admitted.patch)
  const injected = admitted.object as unknown as InjectedPod
  const app = injected.spec.containers.find((each) => each.name === 'app')
  story.claim(!JSON.stringify(app).includes('payments-token'), 'the application container mounts no token')

  story.heading('3. The sidecar runs as that pod says')
  const sidecar = new Sidecar(
    injected,
    {
      configMaps: new Map([
        [configMap.metadata.name, configMap.data],
        ['provider-ca', { 'ca.crt': provider.ca }],
      ]),
      secrets: new Map([['payments-token', { token: example.token }]]),
    },
    [process.execPath, ...NODE_FLAGS, join(ROOT, 'proxy', 'main.ts')],
  )
  const application = new Application(listenPort)
  try {
    story.say(`Its startup probe passes after ${duration(await sidecar.started())}.`)
    await acts({ story, provider, sidecar, application, telemetryPort, token: example.token })
    await publishesLive({ story, sidecar, application, telemetryPort, ambassador })
    story.heading('11. The pod ends')
    const { code, durationMs } = await sidecar.stop()
    story.claim(code === 0 && durationMs < 5000, `SIGTERM: exit code ${code} after ${duration(durationMs)}`)
  } catch (error) {
    story.say(sidecar.log)
    throw error
  } finally {
    application.close()
    sidecar.clean()
    await provider.stop()
  }
}

interface Scene {
  readonly story: Story
  readonly provider: Provider
  readonly sidecar: Sidecar
  readonly application: Application
  readonly telemetryPort: number
  readonly token: string
}

async function acts({ story, provider, sidecar, application, telemetryPort, token }: Scene): Promise<void> {
  story.heading('4. The provider fails two of three requests')
  const flaky = await application.inTurn(20)
  const seen = provider.takeSeen()
  story.say(`The application sends ${flaky.length} requests, one after the other.`)
  story.say(
    `The provider sees ${seen.requests}: it answers ${seen.answered503} with 503, cuts ${seen.cut}, serves ${seen.answered200}.`,
  )
  story.claim(
    count(flaky, 200) === flaky.length && seen.answered503 + seen.cut >= 2 * flaky.length,
    `the application sees ${count(flaky, 200)} of ${flaky.length} answers with 200: ${seen.answered503 + seen.cut} failures hidden`,
  )

  story.heading('5. The token')
  const withToken = seen.tokens.get(`Bearer ${token}`) ?? 0
  story.claim(
    withToken === seen.requests,
    `the application sent none; ${withToken} of ${seen.requests} requests arrived with it`,
  )
  provider.isFlaky = false
  sidecar.swap('secret', 'payments-token', { token: 'rotated-token' })
  const swappedAt = performance.now()
  const during: Awaited<ReturnType<Application['inTurn']>> = []
  provider.takeSeen()
  let takenAfterMs = 0
  while (takenAfterMs === 0 && performance.now() - swappedAt < 5000) {
    during.push(await application.get())
    if (provider.takeSeen().tokens.has('Bearer rotated-token')) takenAfterMs = performance.now() - swappedAt
    await sleep(100)
  }
  story.claim(
    takenAfterMs > 0 && count(during, 200) === during.length,
    `the Secret is rotated: the new token is sent ${duration(takenAfterMs)} later, no request failed`,
  )

  story.heading('6. The provider goes down')
  await provider.stop()
  const failing = []
  while (failing.length < 20 && failing.at(-1)?.reason !== 'circuit_open') failing.push(await application.get())
  const opened = await metric(telemetryPort, 'ambassador_circuit_state', 'upstream="live"')
  story.say(
    `${failing.length} requests until the breaker is open; they took ${failing.map((each) => duration(each.durationMs)).join(', ')}.`,
  )
  story.claim(opened === 2, 'ambassador_circuit_state is 2 (open)')
  const refused = await application.inTurn(10)
  const slowest = Math.max(...refused.map((each) => each.durationMs))
  story.claim(
    count(refused, 503, 'circuit_open') === refused.length && refused.every((each) => each.retryAfter !== null),
    `${refused.length} more are answered at once (the slowest in ${duration(slowest)}): 503, x-ambassador-reason: circuit_open, Retry-After: ${refused[0]?.retryAfter}`,
  )

  story.heading('7. The provider is back')
  await provider.start()
  provider.takeSeen()
  const downAt = performance.now()
  let back = await application.get()
  let unanswered = 0
  while (back.status !== 200 && performance.now() - downAt < 10_000) {
    unanswered++
    await sleep(50)
    back = await application.get()
  }
  const backAfterMs = performance.now() - downAt
  const probes = provider.takeSeen().requests
  const closed = await metric(telemetryPort, 'ambassador_circuit_state', 'upstream="live"')
  story.claim(
    back.status === 200 && probes === 1 && closed === 0,
    `one probe after ${duration(backAfterMs)} (${unanswered} requests refused meanwhile), and the breaker is closed`,
  )

  story.heading('8. The application sends 50 requests at once; the limit is 10 a second with a burst of 20')
  await sleep(2100) // Until the burst is whole again.
  const startedAt = performance.now()
  const burst = await application.atOnce(50)
  const tookMs = performance.now() - startedAt
  const served = count(burst, 200)
  const limited = burst.filter((each) => each.status === 429)
  const most = 20 + Math.ceil((tookMs / 1000) * 10)
  const arrived = provider.takeSeen().requests
  story.claim(
    served >= 20 && served <= most && served + limited.length === burst.length && arrived === served,
    `${served} are served and arrive, ${limited.length} are answered 429 rate_limited with Retry-After: ${limited[0]?.retryAfter}`,
  )

  story.heading('9. Somebody else answers under the name of the provider')
  provider.useCertificate('impostor.example')
  await sleep(1000)
  const impostor = await application.get()
  const toImpostor = provider.takeSeen()
  story.claim(
    impostor.status === 502 && impostor.reason === 'tls_verify_failed' && toImpostor.requests === 0,
    `${impostor.status} ${impostor.reason}; ${toImpostor.requests} requests, and no token, reached it`,
  )
  const { ambassadors } = (await (await fetch(`http://127.0.0.1:${telemetryPort}/configz`)).json()) as {
    ambassadors: { lastError: { message: string } | null }[]
  }
  story.say(`/configz: ${ambassadors[0]?.lastError?.message}`)
  provider.useCertificate(PROVIDER_NAME)
}

/** A changed Ambassador reaches a running sidecar. */
async function publishesLive(
  scene: Pick<Scene, 'story' | 'sidecar' | 'application' | 'telemetryPort'> & { readonly ambassador: Ambassador },
): Promise<void> {
  const { story, sidecar, telemetryPort, ambassador } = scene
  story.heading('10. The Ambassador is changed while the sidecar runs')
  const { rateLimit: _none, ...spec } = ambassador.spec
  const metadata = { ...ambassador.metadata, generation: 2 }
  const { config, configMap } = publish({ ...ambassador, metadata, spec } as Ambassador)
  sidecar.swap('configMap', configMap.metadata.name, configMap.data)
  const swappedAt = performance.now()
  let isLoaded = false
  while (!isLoaded && performance.now() - swappedAt < 5000) {
    await sleep(10)
    const { ambassadors } = (await (await fetch(`http://127.0.0.1:${telemetryPort}/configz`)).json()) as {
      ambassadors: { hash: string; generation: number }[]
    }
    isLoaded = ambassadors[0]?.hash === config.hash && ambassadors[0].generation === 2
  }
  const loadedMs = performance.now() - swappedAt
  story.claim(
    isLoaded && loadedMs < 2000,
    `the Ambassador loses its rate limit: in force ${duration(loadedMs)} after the ConfigMap changed`,
  )
}

const { values } = parseArgs({ options: { cluster: { type: 'boolean', default: false } } })
const startedAt = performance.now()
const story = new Story()
const example = readExample(ROOT)
try {
  if (values.cluster) {
    const { clusterDemo } = await import('./cluster/main.ts')
    await clusterDemo(story, example)
  } else await demo(story, example)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(1)
}
const took = duration(performance.now() - startedAt)
story.heading(
  story.failed === 0
    ? `All ${story.held} claims held, in ${took}.`
    : `${story.failed} of ${story.failed + story.held} claims did not hold, in ${took}.`,
)
process.exitCode = story.failed === 0 ? 0 : 1
