// An upstream whose behaviour a test changes while it runs. Port 8080 serves, port 8090 takes orders:
// PUT /behaviour {"failEvery": 3, "status": 500, "delayMs": 0, "down": false}; GET /stats -> what was seen.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'

let behaviour = { failRatioOf3: 0, status: 500, delayMs: 0, down: false, text: process.env.TEXT ?? 'hello' }
let stats = { requests: 0, connections: 0, authorization: {}, ids: {} }

const handler = (request, response) => {
  const n = stats.requests++
  const auth = request.headers.authorization ?? ''
  stats.authorization[auth] = (stats.authorization[auth] ?? 0) + 1
  request.resume()
  setTimeout(() => {
    if (n % 3 < behaviour.failRatioOf3) {
      response.writeHead(behaviour.status, { 'content-type': 'text/plain' })
      response.end('failed on purpose\n')
      return
    }
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(
      JSON.stringify({
        text: behaviour.text,
        path: request.url,
        host: request.headers.host,
        id: request.headers['x-request-id'],
        authorization: auth,
      }) + '\n',
    )
  }, behaviour.delayMs)
}

let server
function listen() {
  server =
    process.env.TLS_DIR === undefined
      ? createServer(handler)
      : createTlsServer(
          { cert: readFileSync(`${process.env.TLS_DIR}/tls.crt`), key: readFileSync(`${process.env.TLS_DIR}/tls.key`) },
          handler,
        )
  server.on('connection', () => stats.connections++)
  server.listen(8080, '::')
}
listen()

createServer((request, response) => {
  let body = ''
  request.on('data', (chunk) => (body += chunk))
  request.on('end', () => {
    if (request.method === 'PUT') {
      const before = behaviour.down
      behaviour = { ...behaviour, ...JSON.parse(body) }
      if (behaviour.down && !before) {
        server.close()
        server.closeAllConnections()
      }
      if (!behaviour.down && before) listen()
      if (JSON.parse(body).reset) stats = { requests: 0, connections: 0, authorization: {}, ids: {} }
    }
    response.end(JSON.stringify({ behaviour, stats }))
  })
}).listen(8090, '::')

process.on('SIGTERM', () => process.exit(0))
