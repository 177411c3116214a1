/** TCP through a sidecar in a pod: bytes both ways, half-close, a hosts entry, an upstream that is not there, a socket in place of a port, zones. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, appContainer, deployment, podTemplate, RESOURCES, RESTRICTED } from './lib/manifests.ts'
import { NODE_IMAGE, type World, world } from './lib/world.ts'

/** Answers only after the client has half-closed, with the number of bytes and then what came in upper case; at the second port with the port. */
const ECHO = `
import { createServer } from 'node:net'
createServer({ allowHalfOpen: true }, (socket) => {
  const chunks = []
  socket.on('data', (chunk) => chunks.push(chunk))
  socket.on('end', () => {
    const all = Buffer.concat(chunks)
    socket.end(all.length + ' ' + all.toString().slice(0, 100).toUpperCase())
  })
  socket.on('error', () => {})
}).listen(7000, '::')
createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => {}).resume().on('end', () => socket.end('far'))
}).listen(7005, '::')
process.on('SIGTERM', () => process.exit(0))
`

const SOCKET = '/run/echo/echo.sock'

/** What a connection to the socket answers, twenty times one after the other. */
const BY_SOCKET = `
const { connect } = require('node:net')
const call = () => new Promise((resolve, reject) => {
  let text = ''
  const socket = connect('${SOCKET}', () => socket.end('hello')).on('error', reject).setEncoding('utf8')
  socket.on('data', (chunk) => (text += chunk)).on('close', () => resolve(text))
})
const all = async () => {
  const answers = []
  while (answers.length < 20) answers.push(await call())
  console.log(JSON.stringify(answers))
}
all()`

const ZONE = 'topology.kubernetes.io/zone'
/** A node of somebody else is not labelled: there the pod says itself where it is, as it does before Kubernetes 1.35. */
const isGiven = process.env.TEST_KUBECONFIG !== undefined

const idle = {
  name: 'app',
  image: NODE_IMAGE,
  imagePullPolicy: 'IfNotPresent',
  command: ['node', '-e', 'process.on("SIGTERM", () => process.exit()); setInterval(() => {}, 60_000)'],
  resources: RESOURCES,
  securityContext: RESTRICTED,
}

describe('protocol TCP on a real cluster', () => {
  let w: World
  before(async () => {
    w = await world('e2e-tcp')
    if (!isGiven) await w.kubectl.run(['label', 'node', '--all', '--overwrite', `${ZONE}=near`])
    const near = podTemplate('near', 'zoned', { containers: [idle] }) as Json
    if (isGiven) near.metadata.labels[ZONE] = 'near'
    await w.kubectl.apply([
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'echo' }, data: { 'echo.mjs': ECHO } },
      deployment('echo', {
        metadata: { labels: { app: 'echo' } },
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [
            {
              name: 'echo',
              image: NODE_IMAGE,
              imagePullPolicy: 'IfNotPresent',
              command: ['node', '/scripts/echo.mjs'],
              securityContext: RESTRICTED,
              readinessProbe: { tcpSocket: { port: 7000 }, periodSeconds: 1 },
              volumeMounts: [{ name: 'scripts', mountPath: '/scripts' }],
            },
          ],
          volumes: [{ name: 'scripts', configMap: { name: 'echo' } }],
        },
      }),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'echo' },
        spec: {
          selector: { app: 'echo' },
          ports: [
            { name: 'near', port: 7000 },
            { name: 'far', port: 7005 },
          ],
        },
      },
      ambassador('echo', {
        protocol: 'TCP',
        listen: { port: 7001, hostnames: ['echo-server'] },
        upstreams: [{ name: 'live', dns: { hostname: 'echo', port: 7000 } }],
      }),
      ambassador('nowhere', {
        protocol: 'TCP',
        listen: { port: 7002 },
        upstreams: [{ name: 'live', endpoints: [{ host: 'echo', port: 7999 }] }],
      }),
      ambassador('zoned', {
        protocol: 'TCP',
        listen: { port: 7003, unix: { path: SOCKET } },
        upstreams: [
          {
            name: 'live',
            endpoints: [
              { host: 'echo', port: 7005, zone: 'far' },
              { host: 'echo', port: 7000, zone: 'near' },
            ],
            loadBalancing: { zonePreference: 'SameZone' },
          },
        ],
      }),
      deployment('app', podTemplate('app', 'echo,nowhere', { containers: [appContainer()] })),
      deployment('near', near),
    ])
    await w.kubectl.rollout('deployment/echo')
    await Promise.all(['app', 'near'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    // A Service may know its pod a moment later than the rollout does.
    await eventually('echo is reached', async () => (await send('localhost', 7001, 6)).stdout.startsWith('6 HELLO'))
  })
  after(async () => {
    if (!isGiven) await w?.kubectl.run(['label', 'node', '--all', `${ZONE}-`])
    await w?.close()
  })

  const send = (host: string, port: number, bytes: number) =>
    w.kubectl.exec('deploy/app', ['sh', '-c', `yes hello | head -c ${bytes} | nc -w 10 ${host} ${port}`])

  it('carries bytes both ways and the half-close between them', async () => {
    const { stdout, code, stderr } = await send('localhost', 7001, 600)
    assert.equal(code, 0, stderr)
    assert.match(stdout, /^600 HELLO\nHELLO/)
  })

  it('carries 64 MiB', async () => {
    const { stdout } = await send('127.0.0.1', 7001, 64 * 1024 * 1024)
    assert.match(stdout, /^67108864 HELLO/)
  })

  it('is found under the name that the application always used', async () => {
    const { stdout, code, stderr } = await send('echo-server', 7001, 6)
    assert.equal(code, 0, stderr)
    assert.match(stdout, /^6 HELLO/)
  })

  it('ends a connection whose upstream refuses, and the log says connect_refused', async () => {
    const { stdout } = await send('localhost', 7002, 6)
    assert.equal(stdout, '')
    const [pod] = await w.kubectl.pods('app=app')
    const log = await w.kubectl.run(['logs', pod.metadata.name, '-c', 'ambassador'])
    assert.match(log, /"reason":"connect_refused"/)
  })

  it('is reached by the socket that kubelet shares with the application, and prefers the zone of the node', async () => {
    const zone = await w.kubectl.exec('deploy/near', ['node', '-p', 'process.env.AMBASSADOR_ZONE'], 'ambassador')
    assert.equal(zone.stdout, 'near\n', zone.stderr)
    const { stdout, stderr } = await w.kubectl.exec('deploy/near', ['node', '-e', BY_SOCKET])
    // By chance alone one run in a million would look like this.
    assert.deepEqual(JSON.parse(stdout), Array(20).fill('5 HELLO'), stderr)
  })
})
