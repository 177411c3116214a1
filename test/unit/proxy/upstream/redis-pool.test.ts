import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { HeaderCredential } from '../../../../proxy/policy/credential.ts'
import { Cluster } from '../../../../proxy/upstream/cluster.ts'
import type { Endpoint } from '../../../../proxy/upstream/endpoint.ts'
import { encodeCommand } from '../../../../proxy/upstream/redis/resp.ts'
import { RedisPool } from '../../../../proxy/upstream/redis-pool.ts'
import { tcpServer } from '../../../helpers/tcp.ts'

describe('RedisPool', () => {
  it('gives nobody a connection that logged in with another credential than the one of now', async () => {
    const server = await tcpServer((socket) => {
      // AUTH and PING may come in one piece or in two; what is answered once too often makes the connection useless.
      let said = ''
      socket.on('data', (chunk: Buffer) => {
        said += chunk
        if (!said.endsWith('PING\r\n')) return
        said = ''
        socket.write('+OK\r\n+PONG\r\n')
      })
    })
    let line = encodeCommand(['AUTH', 'old', 'password'])
    const credential = {
      get line() {
        return line
      },
      failure: null,
    } as unknown as HeaderCredential
    const { port } = server
    const cluster = new Cluster(
      {
        config: {
          name: 'cache',
          discovery: { kind: 'dns', hostname: 'unused', port: 1 },
          tls: null,
          auth: null,
          circuitBreaker: null,
          limits: { maxConnections: 8, maxPendingRequests: 1, maxConcurrentRetries: 1 },
        },
        tls: null,
        budget: null,
        probeTimeoutMs: 1000,
        queue: 'Oldest',
        login: { credential, role: null },
      },
      {
        discover: () => ({
          failure: null,
          start: (onChange) => onChange([{ host: '127.0.0.1', ip: '127.0.0.1', port, weight: 1, priority: 0 }]),
          refresh() {},
          stop() {},
        }),
      },
    )
    cluster.start()
    const pool = RedisPool.of(cluster, [...cluster.endpoints][0] as Endpoint)
    const ready = async () => {
      pool.replenish(10_000)
      while (pool.spares < 2) await new Promise((resolve) => setImmediate(resolve))
    }
    try {
      await ready()
      const kept = pool.take()
      assert.ok(kept !== null)
      kept.destroy()
      cluster.connections.release()
      await ready()
      line = encodeCommand(['AUTH', 'new', 'password'])
      assert.equal(pool.take(), null)
      assert.deepEqual([pool.spares, cluster.connections.used], [0, 0])
      await ready()
      const next = pool.take()
      assert.ok(next !== null)
      next.destroy()
    } finally {
      pool.destroy()
      cluster.destroy()
      await server.close()
    }
  })
})
