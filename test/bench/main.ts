/** `npm run bench -- SUITE... [--json] [--seconds N] [--rounds N] [--only NAME,...]`: ours beside HAProxy, nginx and Envoy, in one run. */

import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { POSTGRES_ABOUT, postgresTable, runPostgres } from './postgres/run.ts'
import { table } from './report.ts'
import { runSuite } from './run-suite.ts'
import { connections } from './suites/connections.ts'
import { http, http1m, http16k, https, tcp, tls } from './suites/http.ts'
import { redis } from './suites/redis.ts'
import { streams } from './suites/streams.ts'
import type { Suite } from './suites/suite.ts'

const SUITES: readonly Suite[] = [http, http16k, http1m, https, tcp, tls, ...streams, ...connections, ...redis]
const named = (prefix: string): readonly Suite[] =>
  SUITES.filter(({ name }) => name === prefix || name.startsWith(`${prefix}-`))
/** Names of several suites in one run. */
const GROUPS: Readonly<Record<string, readonly Suite[]>> = { redis, 'tcp-all': named('tcp'), 'tls-all': named('tls') }

const USAGE = `usage: npm run bench -- SUITE... [--json] [--seconds N] [--rounds N] [--only NAME,...]

${SUITES.map(({ name, about }) => `  ${name.padEnd(12)} ${about}`).join('\n')}
  ${'redis'.padEnd(12)} all four of them
  ${'tcp-all'.padEnd(12)} tcp, its streams, and its connections; tls-all likewise
  ${'postgres'.padEnd(12)} ${POSTGRES_ABOUT}

  --seconds N   of load in each round (default: 5)
  --rounds N    rounds, of which the median is told (default: 5)
  --only NAMES  of these alone, with commas between: ambassador, haproxy, nginx, envoy, stunnel, pgbouncer, and
                relay (of redis and postgres): bytes passed on by the same Node, and nothing else done
  --json        print JSON, for a program
`

const main = async (): Promise<number> => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '5' },
      rounds: { type: 'string', default: '5' },
      only: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (positionals.length === 0 || values.help) {
    process.stdout.write(USAGE)
    return values.help ? 0 : 2
  }
  const suites = positionals
    .filter((name) => name !== 'postgres')
    .flatMap((name) => GROUPS[name] ?? suiteOf(name))
    .map((suite) => only(suite, values.only))
  const seconds = whole('--seconds', values.seconds, 60)
  const rounds = whole('--rounds', values.rounds, 50)
  if (process.platform !== 'linux' || availableParallelism() < 2)
    throw new Error('bench: needs Linux and two cores, one for the proxy and one for the load')
  const reports: object[] = []
  for (const suite of suites) {
    const results = await runSuite(suite, { seconds, rounds, warmUpSeconds: Math.min(seconds, 3) })
    if (!values.json) process.stdout.write(`\n${table(suite, results)}`)
    reports.push({ suite: suite.name, about: suite.about, seconds, rounds, results })
  }
  if (positionals.includes('postgres')) {
    const results = await runPostgres(
      { seconds, rounds, warmUpSeconds: Math.min(seconds, 3) },
      values.only?.split(',') ?? null,
    )
    if (!values.json) process.stdout.write(`\n${postgresTable(results)}`)
    reports.push({ suite: 'postgres', about: POSTGRES_ABOUT, seconds, rounds, results })
  }
  if (values.json) process.stdout.write(`${JSON.stringify(reports, undefined, 2)}\n`)
  return 0
}

const suiteOf = (name: string): Suite => {
  const suite = SUITES.find((each) => each.name === name)
  if (suite === undefined)
    throw new Error(`suite '${name}': is not known, use ${SUITES.map((s) => s.name).join(' or ')}`)
  return suite
}

const only = (suite: Suite, names: string | undefined): Suite => {
  if (names === undefined) return { ...suite, contenders: suite.contenders.filter((each) => !each.isOnlyByName) }
  const contenders = names.split(',').map((name) => {
    const contender = suite.contenders.find((each) => each.name === name)
    if (contender === undefined) throw new Error(`--only '${name}': is not in suite '${suite.name}'`)
    return contender
  })
  return { ...suite, contenders }
}

const whole = (option: string, text: string, most: number): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > most)
    throw new Error(`${option} '${text}': is not a whole number from 1 to ${most}`)
  return value
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
