/** Runs in a pod of `npm run demo -- --cluster`, alone: the payment provider, with a port on loopback that tells it what to do. */
import { readFileSync } from 'node:fs'
import { createServer as createControl } from 'node:http'
import { createServer } from 'node:https'
import type { Socket } from 'node:net'

const sockets = new Set<Socket>()
let isFlaky = true
let turn = 0
let seen = { requests: 0, failed: 0, withToken: 0 }

const tls = { cert: readFileSync('/tls/tls.crt'), key: readFileSync('/tls/tls.key') }
const server = createServer(tls, (request, response) => {
  request.resume()
  seen.requests++
  if (request.headers.authorization === `Bearer ${process.env['TOKEN']}`) seen.withToken++
  const step = isFlaky ? turn++ % 3 : 2
  if (step < 2) seen.failed++
  if (step === 0) response.writeHead(503).end('overloaded\n')
  else if (step === 1) request.socket.destroy()
  else response.writeHead(200, { 'content-type': 'application/json' }).end('{"charges":[]}\n')
})
server.on('connection', (socket) => {
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
})
server.listen(8443)

/** GET /MODE changes what it does (or nothing, for /seen) and answers what it has seen since the last time. */
createControl((request, response) => {
  const mode = request.url?.slice(1)
  if (mode === 'steady') isFlaky = false
  if (mode === 'down') {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  if (mode === 'up') server.listen(8443)
  response.end(JSON.stringify(seen))
  seen = { requests: 0, failed: 0, withToken: 0 }
}).listen(8080, '127.0.0.1')

process.on('SIGTERM', () => process.exit(0))
