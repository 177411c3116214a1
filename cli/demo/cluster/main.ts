/** `npm run demo -- --cluster`: the same story on the current kube context, where the operator is installed. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Annotation, CONTAINER_NAME, GROUP } from '../../../common/names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { createAuthority, createLeaf } from '../../../operator/webhook/x509.ts'
import { count, type Got } from '../application.ts'
import { type Example, forProvider } from '../example.ts'
import { duration, type Story } from '../story.ts'

const execute = promisify(execFile)
const PROVIDER = 'payment-provider'
const WAIT = '--timeout=120s'

interface Seen {
  readonly requests: number
  readonly failed: number
  readonly withToken: number
}

/** kubectl in one namespace of the current context. */
class Kubectl {
  readonly #namespace: string

  constructor(namespace: string) {
    this.#namespace = namespace
  }

  /** @throws {Error} with what kubectl said */
  async run(args: readonly string[], input?: unknown): Promise<string> {
    const running = execute('kubectl', ['-n', this.#namespace, ...args], { maxBuffer: 1 << 24 })
    if (input !== undefined) running.child.stdin?.end(JSON.stringify(input))
    try {
      return (await running).stdout
    } catch (error) {
      const { code, stderr, message } = error as { code?: unknown; stderr?: string; message: string }
      if (code === 'ENOENT') throw new Error('kubectl is not on the PATH, install it')
      throw new Error(`kubectl ${args[0]}: ${stderr?.trim() || message}`)
    }
  }

  apply(items: readonly unknown[]): Promise<string> {
    return this.run(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
      apiVersion: 'v1',
      kind: 'List',
      items,
    })
  }

  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.run([...args, '-o', 'json'])) as T
  }
}

/** Tells the story. @throws {Error} when the cluster is not as it must be; the message says what to do */
export async function clusterDemo(story: Story, example: Example): Promise<void> {
  const namespace = `ambassador-demo-${randomBytes(3).toString('hex')}`
  const kubectl = new Kubectl(namespace)
  const context = (await kubectl.run(['config', 'current-context'])).trim()
  await kubectl.run(['get', 'crd', `ambassadors.${GROUP}`]).catch(() => {
    throw new Error(
      `context '${context}': the operator is not installed, helm install ambassador charts/ambassador first`,
    )
  })
  story.say(`Context '${context}', namespace '${namespace}' (removed at the end).`)
  await kubectl.run(['create', 'namespace', namespace])
  try {
    await acts(story, example, kubectl)
  } finally {
    await kubectl.run(['delete', 'namespace', namespace, '--wait=false'])
  }
}

async function acts(story: Story, example: Example, kubectl: Kubectl): Promise<void> {
  const port = 8081
  const ambassador = forProvider(example, { listenPort: port, host: PROVIDER, port: 443, serverName: PROVIDER })
  const validity = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) }
  const authority = createAuthority(validity)
  const leaf = createLeaf(authority, [PROVIDER], validity)

  story.heading('1. The Ambassador is applied')
  const { namespace: _none, generation: _one, ...metadata } = ambassador.metadata
  await kubectl.apply([
    { ...ambassador, metadata },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'payments-token' }, stringData: { token: example.token } },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'provider-ca' },
      data: { 'ca.crt': authority.certificate },
    },
  ])
  await kubectl.run(['wait', 'amb/payments', '--for=condition=Accepted', WAIT])
  const image = await proxyImage(kubectl)
  story.say(
    `The operator accepts it. The sidecar's image is '${image}'; it carries Node, so it plays the other two parts as well.`,
  )

  story.heading('2. A Deployment is annotated')
  const script = (file: string) => readFileSync(join(import.meta.dirname, file), 'utf8')
  await kubectl.apply([
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'scripts' },
      data: { 'provider.ts': script('provider.ts'), 'requests.ts': script('requests.ts') },
    },
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'provider-tls' },
      type: 'kubernetes.io/tls',
      stringData: { 'tls.crt': leaf.certificate, 'tls.key': leaf.privateKey },
    },
    service(),
    deployment(PROVIDER, image, ['/scripts/provider.ts'], example.token),
    deployment(
      'checkout',
      image,
      ['-e', "process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1e6)"],
      null,
    ),
  ])
  await kubectl.run(['rollout', 'status', `deployment/${PROVIDER}`, WAIT])
  await kubectl.run(['annotate', 'deployment', 'checkout', `${Annotation.inject}=payments`])
  const annotatedAt = performance.now()
  await kubectl.run(['wait', 'amb/payments', '--for=condition=Ready', WAIT])
  await kubectl.run(['rollout', 'status', 'deployment/checkout', WAIT])
  const readyMs = performance.now() - annotatedAt
  const pods = await kubectl.json<{ items: { spec: { initContainers?: { name: string }[] } }[] }>([
    'get',
    'pods',
    '-l',
    'app=checkout',
  ])
  story.claim(
    pods.items.some(({ spec }) => spec.initContainers?.some(({ name }) => name === CONTAINER_NAME)),
    `its pod runs with a sidecar, and the Ambassador is Ready, ${duration(readyMs)} after the annotation`,
  )

  const send = async (number: number, how: 'turn' | 'once') => {
    const args = [
      'exec',
      'deploy/checkout',
      '-c',
      'app',
      '--',
      'node',
      '/scripts/requests.ts',
      String(port),
      String(number),
      how,
    ]
    return JSON.parse(await kubectl.run(args)) as Got[]
  }
  const tell = async (mode: 'seen' | 'steady' | 'down' | 'up') => {
    const text = `fetch('http://127.0.0.1:8080/${mode}').then((a) => a.text()).then((t) => process.stdout.write(t))`
    return JSON.parse(await kubectl.run(['exec', `deploy/${PROVIDER}`, '--', 'node', '-e', text])) as Seen
  }

  story.heading('3. The provider fails two of three requests')
  const flaky = await send(20, 'turn')
  const seen = await tell('steady')
  story.claim(
    count(flaky, 200) === flaky.length && seen.failed >= 2 * flaky.length,
    `the application sees ${count(flaky, 200)} of ${flaky.length} answers with 200; the provider failed ${seen.failed} of ${seen.requests}`,
  )
  story.claim(
    seen.withToken === seen.requests,
    `the application sent no token; ${seen.withToken} of ${seen.requests} requests arrived with it`,
  )

  story.heading('4. The provider goes down, and comes back')
  await tell('down')
  const failing = await send(20, 'turn')
  const open = count(failing, 503, 'circuit_open')
  story.claim(open >= 15, `the breaker opens: ${open} of ${failing.length} requests are answered 503 circuit_open`)
  await tell('up')
  const upAt = performance.now()
  let back = await send(1, 'turn')
  while (back[0]?.status !== 200 && performance.now() - upAt < 30_000) back = await send(1, 'turn')
  story.claim(
    back[0]?.status === 200,
    `it closes again ${duration(performance.now() - upAt)} after the provider is back`,
  )

  story.heading('5. 50 requests at once; the limit is 10 a second with a burst of 20')
  await new Promise((resolve) => setTimeout(resolve, 2100))
  const burst = await send(50, 'once')
  const limited = count(burst, 429, 'rate_limited')
  story.claim(
    count(burst, 200) >= 20 && limited > 0 && count(burst, 200) + limited === burst.length,
    `${count(burst, 200)} are served, ${limited} are answered 429 rate_limited`,
  )

  story.heading('6. The Ambassador is changed')
  await kubectl.run(['patch', 'amb/payments', '--type=json', '-p', '[{"op":"remove","path":"/spec/rateLimit"}]'])
  const patchedAt = performance.now()
  const generation = async () => {
    const { status, metadata: meta } = await kubectl.json<Ambassador>(['get', 'amb/payments'])
    const programmed = status?.conditions?.find(({ type }) => type === 'Programmed')
    return programmed?.status === 'True' && programmed.observedGeneration === meta.generation
  }
  while (!(await generation()) && performance.now() - patchedAt < 30_000)
    await new Promise((resolve) => setTimeout(resolve, 100))
  const programmedMs = performance.now() - patchedAt
  const unlimited = await send(50, 'once')
  story.claim(
    count(unlimited, 200) === unlimited.length,
    `without its rate limit it is in force in the running pod after ${duration(programmedMs)}; 50 of 50 are served`,
  )
}

/** What the webhook would put into a pod, asked without creating one. */
async function proxyImage(kubectl: Kubectl): Promise<string> {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'question', annotations: { [Annotation.inject]: 'payments' } },
    spec: { containers: [{ name: 'app', image: 'none' }] },
  }
  const text = await kubectl.run(['create', '--dry-run=server', '-o', 'json', '-f', '-'], pod)
  const { spec } = JSON.parse(text) as { spec: { initContainers?: Sidecar[]; containers: Sidecar[] } }
  const sidecar = [...(spec.initContainers ?? []), ...spec.containers].find(({ name }) => name === CONTAINER_NAME)
  if (sidecar === undefined) throw new Error('the webhook injected nothing, is the operator running?')
  return sidecar.image
}

interface Sidecar {
  readonly name: string
  readonly image: string
}

function service() {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: PROVIDER },
    spec: { selector: { app: PROVIDER }, ports: [{ port: 443, targetPort: 8443 }] },
  }
}

/** One pod that runs Node with these arguments; the provider has its certificate and knows the token. */
function deployment(name: string, image: string, args: readonly string[], token: string | null) {
  const labels = { app: name }
  const mounts = [{ name: 'scripts', mountPath: '/scripts' }]
  const volumes: object[] = [{ name: 'scripts', configMap: { name: 'scripts' } }]
  if (token !== null) {
    mounts.push({ name: 'tls', mountPath: '/tls' })
    volumes.push({ name: 'tls', secret: { secretName: 'provider-tls' } })
  }
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      selector: { matchLabels: labels },
      strategy: { type: 'Recreate' },
      template: {
        metadata: { labels },
        spec: {
          terminationGracePeriodSeconds: 5,
          containers: [
            {
              name: 'app',
              image,
              command: ['node', ...args],
              ...(token === null
                ? {}
                : {
                    env: [{ name: 'TOKEN', value: token }],
                    readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 },
                  }),
              volumeMounts: mounts,
            },
          ],
          volumes,
        },
      },
    },
  }
}
