// Clients that ask for what never ends and do not read it, more and more of them, until the sidecar has refused some; one JSON line.
// argv: port of the sidecar, how many must be refused, how many clients at the most.
import { get } from 'node:http'
import { connect } from 'node:net'

const [port, enough, most] = process.argv.slice(2).map(Number)
// So many wait for their answer at a time: on a slow machine they come slower.
const WAITING = 100
const seen = { clients: 0, answered: 0, refused: 0, cut: 0, others: {}, detail: '' }
let waiting = 0

const note = (head) => {
  waiting--
  if (head.startsWith('HTTP/1.1 200')) seen.answered++
  else if (/^x-ambassador-reason: overloaded/im.test(head) && /of the memory limit of/.test(head)) {
    seen.refused++
    seen.detail = JSON.parse(head.split('\r\n\r\n')[1]).detail
  } else seen.others[head.slice(0, 12)] = (seen.others[head.slice(0, 12)] ?? 0) + 1
}

const client = () => {
  seen.clients++
  waiting++
  let isNoted = false
  const once = (head) => {
    if (!isNoted) note(head)
    else seen.cut++
    isNoted = true
  }
  const socket = connect(port, '127.0.0.1', () => socket.write('GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n'))
  socket.once('data', (chunk) => {
    once(chunk.toString('latin1'))
    socket.pause()
  })
  socket.on('error', (error) => once(error.code))
}

const metrics = () =>
  new Promise((resolve, reject) => {
    const request = get('http://127.0.0.1:14990/metrics', (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part) => (text += part))
      answer.on('end', () => resolve(text))
    })
    request.on('error', reject)
  })

const timer = setInterval(async () => {
  for (let n = 0; n < 10 && waiting < WAITING && seen.clients < most && seen.refused < enough; n++) client()
  if (seen.refused < enough && (seen.clients < most || waiting > 0)) return
  clearInterval(timer)
  const isTold = /^ambassador_overloaded\{cause="memory"\} 1$/m.test(await metrics())
  console.log(JSON.stringify({ ...seen, isTold }))
  // As in burst.mjs.
  setTimeout(() => process.exit(0), 300)
}, 10)
