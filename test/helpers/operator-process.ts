/** The operator's writing half as a process, against an API server on plain HTTP: for measuring it. Prints its memory on a line when told to. */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { silentLog } from '../../common/log.ts'
import { startOperator } from '../../operator/app.ts'
import { readSettings } from '../../operator/settings.ts'

const identity = { headers: {}, tls: {} }
const operator = await startOperator({
  settings: readSettings({ POD_NAMESPACE: 'sys', AMBASSADOR_PROXY_IMAGE: 'proxy:1', AMBASSADOR_HTTP_PORT: '0' }),
  connection: { server: new URL(process.argv[2] ?? ''), namespace: 'sys', identity: async () => identity },
  log: silentLog,
  webhook: false,
  host: '127.0.0.1',
})

function inMebibytes(bytes: number): number {
  return Math.round(bytes / 1024 / 1024)
}

/** Of /proc/self/status, in MiB. */
function mebibytes(field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))
  return Math.round(Number(match?.[1]) / 1024)
}

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'stop') {
    void operator.stop(0).then(() => process.exit(0))
    return
  }
  const text = JSON.stringify({
    ...{ rss: mebibytes('VmRSS'), anonymous: mebibytes('RssAnon'), peak: mebibytes('VmHWM') },
    ...{ heap: inMebibytes(process.memoryUsage().heapTotal), external: inMebibytes(process.memoryUsage().external) },
    ...{ cpuSeconds: process.cpuUsage().user / 1e6 },
  })
  process.stdout.write(`${text}\n`)
})
