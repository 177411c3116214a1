// An upstream whose answer to /endless never ends; every other path is answered with two bytes.
import { createServer } from 'node:http'

const chunk = Buffer.alloc(65_536, 'x')
createServer((request, response) => {
  response.on('error', () => {})
  if (request.url !== '/endless') return void response.end('ok')
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  }
  response.on('drain', more)
  more()
}).listen(8080, '::')
process.on('SIGTERM', () => process.exit(0))
