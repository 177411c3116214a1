/** Runs in the application's container, alone: sends requests to http://localhost:PORT and prints what came. Arguments: PORT, COUNT, `turn` or `once`. */
import { request } from 'node:http'

const [port = '8081', count = '1', how = 'turn'] = process.argv.slice(2)

function get(): Promise<object> {
  const startedAt = performance.now()
  return new Promise((resolve) => {
    const outgoing = request({ host: 'localhost', port, path: '/v1/charges' }, (answer) => {
      const { 'x-ambassador-reason': reason = null, 'retry-after': retryAfter = null } = answer.headers
      answer.resume()
      answer.on('end', () =>
        resolve({ status: answer.statusCode, reason, retryAfter, durationMs: performance.now() - startedAt }),
      )
    })
    outgoing.on('error', () =>
      resolve({ status: 0, reason: null, retryAfter: null, durationMs: performance.now() - startedAt }),
    )
    outgoing.end()
  })
}

const all: object[] = []
if (how === 'turn') for (let i = 0; i < Number(count); i++) all.push(await get())
else all.push(...(await Promise.all(Array.from({ length: Number(count) }, get))))
process.stdout.write(JSON.stringify(all))
