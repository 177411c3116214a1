// An application that calls localhost at a steady rate and says four times a second what it saw. It starts to count with the first
// call that goes well: a Service may know its pods a moment after they are ready. It ends on SIGTERM after LINGER_MS more of calling.
// On a machine that gives its pods no CPU for seconds a sidecar sheds, which is no failure of what is tested: it is counted apart.
import { Agent, request } from 'node:http'

const url = new URL(process.env.URL)
const rate = Number(process.env.RATE ?? 100)
const linger = Number(process.env.LINGER_MS ?? 0)
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const seen = { ok: 0, shed: 0, failed: 0, failures: {}, texts: {}, since: {} }
let last

const note = (key) => {
  seen.failed++
  seen.failures[key] = (seen.failures[key] ?? 0) + 1
}

function call() {
  const r = request(url, { agent, timeout: 60_000 }, (response) => {
    let body = ''
    response.on('data', (chunk) => (body += chunk))
    response.on('end', () => {
      const reason = response.headers['x-ambassador-reason'] ?? ''
      if (reason === 'overloaded') return void seen.shed++
      if (response.statusCode !== 200) return note(`${response.statusCode} ${reason}`)
      seen.ok++
      let text = body
      try {
        text = JSON.parse(body).text
      } catch {}
      seen.texts[text] = (seen.texts[text] ?? 0) + 1
      if (text !== last) seen.since[text] = Date.now()
      last = text
    })
    response.on('error', (error) => note(error.code ?? error.message))
  })
  r.on('timeout', () => r.destroy(new Error('timeout')))
  r.on('error', (error) => note(error.code ?? error.message))
  r.end()
}

const isAnswered = () =>
  new Promise((done) => {
    const r = request(url, { agent, timeout: 60_000 }, (response) => {
      response.resume()
      response.on('close', () => done(response.statusCode === 200))
    })
    r.on('timeout', () => r.destroy())
    r.on('error', () => done(false))
    r.end()
  })
while (!(await isAnswered())) await new Promise((done) => setTimeout(done, 50))

const started = Date.now()
let sent = 0
setInterval(() => {
  const due = ((Date.now() - started) / 1000) * rate
  while (sent < due) {
    sent++
    call()
  }
}, 20) // a process that wakes up for each call takes half as much time again
const report = (kind) => console.log(JSON.stringify({ kind, at: Date.now(), ...seen }))
setInterval(() => report('tick'), 250)
process.on('SIGTERM', () => {
  setTimeout(() => {
    report('last')
    process.exit(0)
  }, linger)
})
