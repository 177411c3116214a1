/** wrk as the load: closed loop over kept connections, with heads as applications send them. */

import { writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'
import type { Mode } from './contender.ts'

export interface Load {
  /** Of what the suite counts: requests, GiB or connections. */
  readonly count: number
  /** Answers that were not 2xx, and connections that broke. */
  readonly errors: number
  readonly perSecond: number
  /** Null: the load asks for no answers. */
  readonly p50Ms: number | null
  readonly p99Ms: number | null
}

/** Eight fields with the Host and the Connection that wrk leaves out for keep-alive. */
export const REQUEST_FIELDS: Readonly<Record<string, string>> = {
  Host: 'api.payment-provider.com',
  'User-Agent': 'python-requests/2.32.3',
  Accept: 'application/json',
  'Accept-Encoding': 'gzip, deflate, br',
  'Accept-Language': 'en-GB,en;q=0.8',
  Authorization: 'Bearer 0123456789abcdef0123456789abcdef',
  'X-Forwarded-For': '203.0.113.7',
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
}

export const CONNECTIONS = 32

/** Prints the summary as one line of JSON; wrk's own report rounds. */
const SCRIPT = `
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON {"requests":%d,"durationUs":%d,"errors":%d,"p50Us":%f,"p99Us":%f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
`

export interface LoadOptions {
  readonly core: number
  readonly port: number
  readonly seconds: number
  /** For files of the load. */
  readonly directory: string
  readonly path?: string
  /** Fields beside those that every request has. Default: none. */
  readonly fields?: Readonly<Record<string, string>>
}

/** Loads one port for some seconds. */
export const load = async (options: LoadOptions): Promise<Load> => {
  const script = join(options.directory, 'done.lua')
  writeFileSync(script, SCRIPT)
  const fields = Object.entries({ ...REQUEST_FIELDS, ...options.fields }).flatMap(([name, value]) => [
    '-H',
    `${name}: ${value}`,
  ])
  const said = await run(
    'taskset',
    [
      '-c',
      String(options.core),
      'wrk',
      '-t1',
      `-c${CONNECTIONS}`,
      `-d${options.seconds}s`,
      '-s',
      script,
      ...fields,
      `http://127.0.0.1:${options.port}${options.path ?? '/v1/charges?limit=10'}`,
    ],
    { timeoutMs: (options.seconds + 20) * 1000 },
  )
  const line = /^JSON (.*)$/m.exec(said)?.[1]
  if (line === undefined) throw new Error(`wrk: printed no summary:\n${said}`)
  const { requests, durationUs, errors, p50Us, p99Us } = JSON.parse(line) as Record<string, number>
  return {
    count: requests!,
    errors: errors!,
    perSecond: requests! / (durationUs! / 1e6),
    p50Ms: p50Us! / 1000,
    p99Ms: p99Us! / 1000,
  }
}

/** Calls `look` while so many connections are open that have sent a request and had the beginning of its answer. */
export const withOpenConnections = async <T>(
  port: number,
  connections: number,
  mode: Mode,
  look: () => T | Promise<T>,
): Promise<T> => {
  const fields = Object.entries(REQUEST_FIELDS).map(([name, value]) => `${name}: ${value}\r\n`)
  const request = mode === 'Redis' ? 'PING\r\n' : `GET /v1/charges?limit=10 HTTP/1.1\r\n${fields.join('')}\r\n`
  const sockets: Socket[] = []
  try {
    for (let i = 0; i < connections; i++) {
      const socket = connect(port, '127.0.0.1')
      sockets.push(socket)
      await new Promise<void>((resolve, reject) => {
        socket.once('data', () => resolve()).once('error', reject)
        socket.once('close', () => reject(new Error(`connection ${i}: closed without an answer`)))
        socket.write(request)
      })
    }
    return await look()
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}
