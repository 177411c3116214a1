// Many requests at once, each with other header fields, and what came of them: one JSON line. argv: URL, then a JSON of
// {"count": 100, "headers": {"x-user-id": "user-{n}"}, "lines": false}; {n} is the number of the request.
import { Agent, request } from 'node:http'

const url = new URL(process.argv[2])
const { count, headers = {}, lines = false } = JSON.parse(process.argv[3])
const agent = new Agent({ keepAlive: true, maxSockets: 16 })
const seen = { ok: 0, failures: {}, texts: {} }
const texts = []

const fail = (key) => (seen.failures[key] = (seen.failures[key] ?? 0) + 1)

const call = (n, tries = 1) =>
  new Promise((done) => {
    const own = Object.entries(headers).map(([name, value]) => [name, value.replace('{n}', n)])
    const r = request(url, { agent, headers: Object.fromEntries(own) }, (response) => {
      let body = ''
      response.on('data', (chunk) => (body += chunk))
      response.on('end', () => {
        if (response.statusCode === 200) {
          const { text } = JSON.parse(body)
          seen.ok++
          seen.texts[text] = (seen.texts[text] ?? 0) + 1
          texts[n] = text
        } else if (response.headers['x-ambassador-reason'] === 'overloaded' && tries < 100) {
          // The machine gave the sidecar no CPU for a while, which is no failure of what is tested.
          return void setTimeout(() => call(n, tries + 1).then(done), 100)
        } else fail(`${response.statusCode} ${response.headers['x-ambassador-reason'] ?? ''}`)
        done()
      })
    })
    r.on('error', (error) => {
      fail(error.code ?? error.message)
      done()
    })
    r.end()
  })

let next = 0
const worker = async () => {
  while (next < count) await call(next++)
}
await Promise.all(Array.from({ length: 16 }, worker))
console.log(JSON.stringify({ ...seen, ...(lines ? { lines: texts } : {}) }))
// An exec on a busy node has been seen to end with the process before its last words were passed on.
setTimeout(() => process.exit(0), 300)
