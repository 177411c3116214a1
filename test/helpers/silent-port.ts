/** A port behind which nothing ever happens. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'

/**
 * Starts it; `ends` gets what ends it. `accepts`: the kernel accepts connections and nobody ever reads them (a process that hangs);
 * without it, its queue is full and the kernel drops what comes, so that it is neither accepted nor refused (a machine that is gone).
 */
export async function silentPort(ends: (() => unknown)[], accepts = false, host = '127.0.0.1'): Promise<number> {
  const backlog = accepts ? 511 : 1
  const script = `
    const server = require('node:net').createServer()
    server.listen({ port: 0, host: '${host}', backlog: ${backlog} }, () => {
      require('node:fs').writeSync(1, String(server.address().port) + '\\n')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  ends.push(() => child.kill('SIGKILL'))
  const [text] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(text.toString())
  // Linux takes one more than the backlog. Each is in the queue when it is connected.
  for (let i = 0; !accepts && i <= backlog; i++) {
    const socket = connect(port, host)
    ends.push(() => socket.destroy())
    await once(socket, 'connect')
    socket.on('error', () => {})
  }
  return port
}
