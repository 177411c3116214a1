import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Acquisition } from '../../../../../proxy/protocol/redis/acquire.ts'
import type { RedisSnapshot } from '../../../../../proxy/protocol/redis/snapshot.ts'
import { Cluster, type ClusterOptions } from '../../../../../proxy/upstream/cluster.ts'
import type { Address } from '../../../../../proxy/upstream/discovery/discovery.ts'
import { tcpServer } from '../../../../helpers/tcp.ts'

it('a search whose turn comes while the endpoints of a changed config are looked up waits for them', async () => {
  const starts: ((addresses: readonly Address[]) => void)[] = []
  const at = (port: number) => [{ host: '127.0.0.1', ip: '127.0.0.1', port, weight: 1, priority: 0 }]
  const options = (hostname: string): ClusterOptions => ({
    config: {
      name: 'cache',
      discovery: { kind: 'dns', hostname, port: 1 },
      tls: null,
      auth: null,
      circuitBreaker: null,
      limits: { maxConnections: 1, maxPendingRequests: 1, maxConcurrentRetries: 1 },
    },
    tls: null,
    budget: null,
    probeTimeoutMs: 1000,
    queue: 'Oldest',
  })
  const cluster = new Cluster(options('old'), {
    discover: () => ({ failure: null, start: (onChange) => starts.push(onChange), refresh() {}, stop() {} }),
  })
  const server = await tcpServer((socket) => void socket.on('data', () => socket.write('+PONG\r\n')))
  try {
    cluster.start()
    starts[0]!(at(1))
    assert.ok(cluster.connections.tryAcquire())
    const found = Promise.withResolvers<number>()
    const snapshot = { cluster, credential: null, timeouts: { connectMs: 30_000, requestMs: null, idleMs: null } }
    const search = new Acquisition(snapshot as unknown as RedisSnapshot, {
      onConnection: (socket, endpoint) => {
        socket.destroy()
        found.resolve(endpoint.port)
      },
      onNoConnection: (reason, detail) => found.reject(new Error(`${reason}: ${detail}`)),
    })
    search.start()
    assert.equal(cluster.connections.pending, 1)
    cluster.update(options('new'))
    cluster.connections.release()
    assert.equal(cluster.connections.used, 0, 'it holds no slot meanwhile')
    starts[1]!(at(server.port))
    assert.equal(await found.promise, server.port)
  } finally {
    cluster.destroy()
    await server.close()
  }
})
