/** stunnel as a TLS client with the chain and the name verified. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, run } from '../../../build/machine/exec.ts'
import type { Contender, Setting } from '../contender.ts'
import { start } from '../process.ts'

export const stunnel: Contender = {
  name: 'stunnel',
  features: 'TLS alone',
  prepare: async () => {
    // It tells its version on the standard error.
    const said = await run('sh', ['-c', 'stunnel -version 2>&1']).catch((error: unknown) => {
      if (error instanceof CommandError) return error.stderr
      throw error
    })
    return /stunnel (\S+)/.exec(said)?.[1] ?? 'unknown'
  },
  start: (setting) => {
    const file = join(setting.directory, 'stunnel.conf')
    writeFileSync(file, configFor(setting))
    return start(setting.core, 'stunnel', [file], { port: setting.port })
  },
}

const configFor = ({ upstream, port }: Setting): string => {
  const { tls } = upstream
  if (tls === null) throw new Error('stunnel: needs an upstream that speaks TLS')
  return `
foreground = yes
pid =
debug = err
[out]
client = yes
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${upstream.port}
CAfile = ${tls.caFile}
verifyChain = yes
checkHost = ${tls.serverName}
sni = ${tls.serverName}
`
}
