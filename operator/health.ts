/** The HTTP port for the kubelet and Prometheus: /livez, /readyz, /metrics. */
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Registry } from 'prom-client'

export interface HealthOptions {
  /** 0: a free one. */
  readonly port: number
  /** Default: all addresses. */
  readonly host?: string
  readonly registry: Registry
  /** What is still missing, in words; empty: ready. */
  readonly notReady: () => readonly string[]
}

export interface Health {
  readonly port: number
  close(): Promise<void>
}

/** Resolves when the port is bound. /livez answers as long as the event loop turns: what is broken beside it, a restart does not mend. */
export async function startHealth({ port, host, registry, notReady }: HealthOptions): Promise<Health> {
  const server: Server = createServer((request, response) => {
    const { method, url = '/' } = request
    if (method !== 'GET' && method !== 'HEAD') return say(response, 405, 'use GET')
    const path = url.split('?')[0]
    if (path === '/livez') return say(response, 200, 'ok')
    if (path === '/readyz') {
      const missing = notReady()
      return say(response, missing.length === 0 ? 200 : 503, missing.length === 0 ? 'ok' : missing.join('\n'))
    }
    if (path !== '/metrics') return say(response, 404, 'use /livez, /readyz or /metrics')
    registry.metrics().then(
      (metrics) => say(response, 200, metrics, registry.contentType),
      () => say(response, 500, 'metrics could not be collected'),
    )
  })
  server.headersTimeout = 10_000
  server.requestTimeout = 10_000
  server.maxConnections = 256
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => resolve())
  })
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function say(response: ServerResponse, status: number, text: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type })
  response.end(`${text}\n`)
}
