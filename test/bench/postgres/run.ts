/** The suite `postgres`: pgbench in three protocols through ours and PgBouncer, then memory of idle clients and many clients on one pool. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run } from '../../../build/machine/exec.ts'
import { ensurePackages } from '../../../build/machine/packages.ts'
import { printed } from '../../../build/machine/progress.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { makeAuthority } from '../certificates.ts'
import { anonymousBytes, cpuSeconds, freePort, type Running } from '../process.ts'
import { median, type SuiteOptions } from '../run-suite.ts'
import { askAll, openClients } from './clients.ts'
import { CLIENT_USER, CONTENDERS, type PoolContender, SERVER_NAME } from './contenders.ts'

export const POSTGRES_ABOUT = 'pgbench -S by pooling in transactions, TLS and SCRAM to PostgreSQL'

const LOAD_CORE = 0
const PROXY_CORE = 1
const PROTOCOLS = ['simple', 'extended', 'prepared'] as const
const CLIENTS = [1, 16, 64] as const
/** Connections to the server in the rounds, and of the part with many clients. */
const CONNECTIONS = 20
const FEW_CONNECTIONS = 50
const IDLE_CLIENTS = 1_000
const MANY_CLIENTS = 10_000
const ASKS = 5

export interface PostgresPoint {
  readonly protocol: (typeof PROTOCOLS)[number]
  readonly clients: number
  readonly tps: number
  readonly cpuMicrosPerQuery: number
  readonly p50Ms: number
  readonly failures: number
}

export interface PostgresResult {
  readonly name: string
  readonly version: string
  readonly points: readonly PostgresPoint[]
  /** Null: it does not pool. */
  readonly bytesPerIdleClient: number | null
  /** Of MANY_CLIENTS on FEW_CONNECTIONS: queries a second, all of them answered. Null: it does not pool. */
  readonly manyQueriesPerSecond: number | null
}

interface Entry {
  readonly contender: PoolContender
  readonly version: string
  readonly port: number
  readonly running: Running
  readonly rounds: Map<string, PostgresPoint[]>
}

/** @param names of contenders; null: all */
export async function runPostgres(options: SuiteOptions, names: readonly string[] | null): Promise<PostgresResult[]> {
  const contenders = CONTENDERS.filter(({ name, isOnlyByName }) =>
    names === null ? isOnlyByName !== true : names.includes(name),
  )
  if (contenders.length === 0) throw new Error(`--only: use ${CONTENDERS.map(({ name }) => name).join(' or ')}`)
  const progress = printed()
  await ensurePackages(
    ['postgresql', 'openssl', ...(contenders.some(({ name }) => name === 'pgbouncer') ? ['pgbouncer'] : [])],
    progress,
  )
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-bench-'))
  // PgBouncer reads its files as another user.
  chmodSync(directory, 0o755)
  const ends: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })]
  try {
    const { caFile, cert, key } = await certificate(directory)
    // It and what it starts share the core of the load.
    const { port: serverPort, pid } = await postgresServer(
      {
        tls: { cert, key },
        // A relay cannot log in with SCRAM, which is bound to the channel, in place of its client.
        hba: [`hostssl all ${CLIENT_USER} 127.0.0.1/32 trust`, 'host all all 127.0.0.1/32 scram-sha-256'],
        settings: ['max_connections=120', 'shared_buffers=128MB'],
      },
      ends,
    )
    await run('taskset', ['-pc', String(LOAD_CORE), String(pid)])
    await pgbench(serverPort, POSTGRES_USER, ['-i', '-q', '-s', '1'])
    await run(
      'psql',
      [...to(serverPort, POSTGRES_USER), '-qc', `create role ${CLIENT_USER} login superuser`, 'postgres'],
      PASSWORD,
    )
    const server = { port: serverPort, caFile }
    const begin = async (contender: PoolContender, connections: number) => {
      const port = await freePort()
      const folder = mkdtempSync(join(directory, `${contender.name}-`))
      return {
        port,
        running: await contender.start({ server, port, core: PROXY_CORE, directory: folder, connections }),
      }
    }
    const entries: Entry[] = []
    for (const contender of contenders) {
      const version = await progress.step(`${contender.name} prepared`, () => contender.prepare())
      const { port, running } = await begin(contender, CONNECTIONS)
      ends.push(running.stop)
      entries.push({ contender, version, port, running, rounds: new Map() })
    }
    for (const protocol of PROTOCOLS) {
      for (const entry of entries) {
        if (protocol === 'prepared' && !entry.contender.hasPrepared) continue
        await measure(entry, protocol, clientsOf(entry).at(-1)!, options.warmUpSeconds)
      }
    }
    for (let round = 1; round <= options.rounds; round++) {
      await progress.step(`round ${round} of ${options.rounds}`, async () => {
        for (const protocol of PROTOCOLS) {
          for (const clients of CLIENTS) {
            for (const entry of entries) {
              if (protocol === 'prepared' && !entry.contender.hasPrepared) continue
              if (!clientsOf(entry).includes(clients)) continue
              const point = await measure(entry, protocol, clients, options.seconds)
              const name = `${protocol} ${clients}`
              entry.rounds.set(name, [...(entry.rounds.get(name) ?? []), point])
            }
          }
        }
      })
    }
    const results: PostgresResult[] = []
    for (const { contender, version, rounds, running } of entries) {
      await running.stop()
      const { name } = contender
      const points = [...rounds.values()].map(middle)
      if (!contender.isPooling) {
        results.push({ name, version, points, bytesPerIdleClient: null, manyQueriesPerSecond: null })
        continue
      }
      const fresh = await begin(contender, FEW_CONNECTIONS)
      ends.push(fresh.running.stop)
      const bytesPerIdleClient = await idleBytes(fresh.port, fresh.running)
      const manyQueriesPerSecond = await progress.step(`${name}: ${MANY_CLIENTS} clients`, () => many(fresh.port))
      await fresh.running.stop()
      results.push({ name, version, points, bytesPerIdleClient, manyQueriesPerSecond })
    }
    return results
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

/** More clients than connections are for those who share them. */
function clientsOf({ contender }: Entry): readonly number[] {
  return contender.isPooling ? CLIENTS : CLIENTS.filter((clients) => clients <= CONNECTIONS)
}

async function certificate(directory: string) {
  const folder = join(directory, 'tls')
  mkdirSync(folder)
  const { caFile, certificateFile, keyFile } = await makeAuthority(folder, SERVER_NAME)
  return { caFile, cert: await run('cat', [certificateFile]), key: await run('cat', [keyFile]) }
}

async function measure(
  { port, running }: Entry,
  protocol: PostgresPoint['protocol'],
  clients: number,
  seconds: number,
): Promise<PostgresPoint> {
  const before = cpuSeconds(running.pid)
  const said = await pgbench(port, CLIENT_USER, [
    '-n',
    '-S',
    '-M',
    protocol,
    '-c',
    String(clients),
    '-T',
    String(seconds),
  ])
  const used = cpuSeconds(running.pid) - before
  const number = (pattern: RegExp): number => {
    const found = pattern.exec(said)?.[1]
    if (found === undefined) throw new Error(`pgbench: printed no summary:\n${said}`)
    return Number(found)
  }
  const queries = number(/actually processed: (\d+)/)
  return {
    protocol,
    clients,
    tps: number(/^tps = ([\d.]+)/m),
    cpuMicrosPerQuery: (used / queries) * 1e6,
    p50Ms: number(/latency average = ([\d.]+) ms/),
    failures: number(/failed transactions: (\d+)/),
  }
}

const pgbench = (port: number, user: string, args: readonly string[]): Promise<string> =>
  run('taskset', ['-c', String(LOAD_CORE), 'pgbench', ...to(port, user), ...args, 'postgres'], {
    timeoutMs: 180_000,
    ...PASSWORD,
  })

const to = (port: number, user: string): string[] => ['-h', '127.0.0.1', '-p', String(port), '-U', user]
/** What is measured is plain text up to the proxy. */
const PASSWORD = { env: { PGPASSWORD: POSTGRES_PASSWORD, PGSSLMODE: 'disable' } }

/** What an idle client costs: anonymous memory with them, less that with none. */
async function idleBytes(port: number, running: Running): Promise<number> {
  for (const socket of await openClients(port, 20)) socket.destroy()
  const before = anonymousBytes(running.pid)
  const sockets = await openClients(port, IDLE_CLIENTS)
  await askAll(sockets, 1)
  const after = anonymousBytes(running.pid)
  for (const socket of sockets) socket.destroy()
  return (after - before) / IDLE_CLIENTS
}

async function many(port: number): Promise<number> {
  const sockets = await openClients(port, MANY_CLIENTS)
  try {
    const seconds = await askAll(sockets, ASKS)
    return (MANY_CLIENTS * ASKS) / seconds
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}

function middle(points: readonly PostgresPoint[]): PostgresPoint {
  const { protocol, clients } = points[0]!
  return {
    protocol,
    clients,
    tps: median(points.map(({ tps }) => tps)),
    cpuMicrosPerQuery: median(points.map(({ cpuMicrosPerQuery }) => cpuMicrosPerQuery)),
    p50Ms: median(points.map(({ p50Ms }) => p50Ms)),
    failures: points.reduce((sum, { failures }) => sum + failures, 0),
  }
}

/** For people: each figure, and its ratio to PgBouncer's of the same run. */
export function postgresTable(results: readonly PostgresResult[]): string {
  const base = results.find(({ name }) => name === 'pgbouncer')
  const ratio = (value: number, of: number | null | undefined) => (of == null ? '' : ` (× ${(value / of).toFixed(2)})`)
  const lines = results.flatMap((result) => [
    `${result.name} ${result.version}`,
    ...result.points.map(({ protocol, clients, tps, cpuMicrosPerQuery, p50Ms, failures }) => {
      const same = base?.points.find((each) => each.protocol === protocol && each.clients === clients)
      const cells = [
        `  ${protocol} c=${clients}`.padEnd(18),
        `${tps.toFixed(0)} tps${ratio(tps, same?.tps)}`.padEnd(26),
        `${cpuMicrosPerQuery.toFixed(1)} µs CPU/query${ratio(cpuMicrosPerQuery, same?.cpuMicrosPerQuery)}`.padEnd(34),
        `${p50Ms.toFixed(2)} ms`,
        failures === 0 ? '' : `${failures} failures`,
      ]
      return cells.join('  ').trimEnd()
    }),
    ...(result.bytesPerIdleClient === null
      ? []
      : [`  memory of an idle client: ${(result.bytesPerIdleClient / 1000).toFixed(1)} kB`]),
    ...(result.manyQueriesPerSecond === null
      ? []
      : [
          `  ${MANY_CLIENTS} clients on ${FEW_CONNECTIONS} connections: ${result.manyQueriesPerSecond.toFixed(0)} queries/s${ratio(result.manyQueriesPerSecond, base?.manyQueriesPerSecond)}`,
        ]),
    '',
  ])
  const hint = results.some(
    ({ name, points }) => name === 'pgbouncer' && points.every(({ protocol }) => protocol !== 'prepared'),
  )
    ? ['no figures for prepared: PgBouncer before 1.21 does not carry prepared statements in this mode', '']
    : []
  return [`postgres: ${POSTGRES_ABOUT}; × is the ratio to pgbouncer`, '', ...lines, ...hint].join('\n')
}
