/** TCP through a sidecar in a pod: bytes both ways, half-close, a hosts entry, an upstream that is not there. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { ambassador, appContainer, deployment, podTemplate, RESTRICTED } from './lib/manifests.ts'
import { NODE_IMAGE, type World, world } from './lib/world.ts'

/** Answers only after the client has half-closed, with the number of bytes and then what came in upper case. */
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
process.on('SIGTERM', () => process.exit(0))
`

describe('protocol TCP on a real cluster', () => {
  let w: World
  before(async () => {
    w = await world('e2e-tcp')
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
        spec: { selector: { app: 'echo' }, ports: [{ port: 7000 }] },
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
      deployment('app', podTemplate('app', 'echo,nowhere', { containers: [appContainer()] })),
    ])
    await w.kubectl.rollout('deployment/echo')
    await w.kubectl.rollout('deployment/app')
  })
  after(() => w.close())

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
})
