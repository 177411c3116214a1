/** The Compose file of the examples with the image itself, in containers that share a network as it says: each network is a pod here. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { load } from 'js-yaml'
import { eventually, type Json } from './lib/kubectl.ts'
import { RESOURCES } from './lib/manifests.ts'
import { APP_IMAGE, NODE_IMAGE, type World, world } from './lib/world.ts'

interface Service {
  readonly image: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly network_mode?: string
}

const file = join(import.meta.dirname, '../../examples/compose/compose.yaml')
const services = (load(readFileSync(file, 'utf8')) as { services: Readonly<Record<string, Service>> }).services

/** A service as it stands, but for images of a registry, which cannot be had everywhere. */
function containerOf(name: string): object {
  const { image, command, environment = {} } = services[name]!
  const isOurs = image === NODE_IMAGE
  return {
    name,
    image: isOurs ? image : APP_IMAGE,
    imagePullPolicy: 'IfNotPresent',
    ...(command === undefined ? {} : { args: command }),
    env: Object.entries(environment).map(([key, value]) => ({ name: key, value })),
    resources: RESOURCES,
    // Compose runs an image as the user that the image says, which is root for BusyBox.
    ...(isOurs ? {} : { securityContext: { runAsUser: 0 } }),
  }
}

/** One network: the pod of a service, and of those that share its network. */
function network(name: string): object {
  const others = Object.keys(services).filter((each) => services[each]!.network_mode === `service:${name}`)
  const containers = [name, ...others].map(containerOf)
  const spec = { terminationGracePeriodSeconds: 1, enableServiceLinks: false, containers }
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels: { app: name } }, spec }
}

describe('examples/compose in containers', () => {
  let w: World
  before(async () => {
    w = await world('e2e-compose')
  })
  after(() => w?.close())

  it('starts without its API, waits for it, and answers as localhost of the application', async () => {
    await w.kubectl.apply([network('app')])
    await w.kubectl.wait('pod/app', 'Ready')
    const app = await w.kubectl.get('pod', 'app')
    assert.deepEqual(app.spec.containers.map(({ name }: Json) => name).sort(), ['ambassador', 'app'])
    assert.equal(
      app.spec.containers.find(({ name }: Json) => name === 'ambassador').image,
      services['ambassador']!.image,
    )
    const inSidecar = (...command: string[]) => w.kubectl.exec('pod/app', command, 'ambassador')
    const waitFor = (timeout: string) => inSidecar('ambassador', 'wait', '--timeout', timeout, '--upstream', 'default')
    const listens = await inSidecar('ambassador', 'wait', '--timeout', '60s')
    assert.equal(listens.code, 0, listens.stderr)
    const early = await waitFor('0s')
    assert.equal(early.code, 1)
    assert.match(early.stderr, /api/)

    const waits = waitFor('120s')
    const service = {
      selector: { app: 'api' },
      ports: [{ port: Number(services['ambassador']!.environment!['UPSTREAM_PORT']) }],
    }
    await w.kubectl.apply([
      { apiVersion: 'v1', kind: 'Service', metadata: { name: 'api' }, spec: service },
      network('api'),
    ])
    const { code, stderr } = await waits
    assert.equal(code, 0, stderr)
    const port = services['ambassador']!.environment!['LISTEN_PORT']
    const ask = () => w.kubectl.exec('pod/app', ['wget', '-qO-', '-T', '10', `http://localhost:${port}/`])
    await eventually('the API answers', async () => (await ask()).stdout === 'api\n')
  })
})
