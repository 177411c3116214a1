/** The process of the operator: settings from the environment, signals, and what nobody expected. */
import { hostname } from 'node:os'
import { createLog } from '../common/log.ts'
import { type Operator, startOperator } from './app.ts'
import { connect } from './kube/connection.ts'
import { readSettings, SettingsError } from './settings.ts'

const log = createLog({ name: 'operator' })
let operator: Operator | undefined
let isEnding = false

async function main(): Promise<void> {
  const settings = readSettings(process.env, hostname())
  log.level = settings.logLevel
  operator = await startOperator({ settings, connection: await connect(), log })
}

/** Stops in order and ends the process with this code; asked again, it stops without the delay. */
async function end(code: number, why: string): Promise<void> {
  if (isEnding) {
    log.warn({ reason: why }, 'told to stop again, ending at once')
    process.exit(code)
  }
  isEnding = true
  log.info({ reason: why }, 'stopping')
  try {
    await operator?.stop(code === 0 ? undefined : 0)
  } catch (err) {
    log.error({ err }, 'could not stop in order')
  }
  process.exit(code)
}

process.on('SIGTERM', () => void end(0, 'SIGTERM'))
process.on('SIGINT', () => void end(0, 'SIGINT'))

// A promise that nobody waited for: one piece of work is lost, and the next reconcile or review does not depend on it.
process.on('unhandledRejection', (err) => {
  operator?.metrics.unhandled.inc()
  log.error({ err }, 'a promise was rejected and nobody waited for it')
})
// Code that was cut in the middle: what it left behind is not known, so the process is replaced, in order.
process.on('uncaughtException', (err) => {
  operator?.metrics.unhandled.inc()
  log.error({ err }, 'an error that no code expected')
  void end(1, 'uncaughtException')
})

main().catch((err: unknown) => {
  if (err instanceof SettingsError) log.error({ reason: err.message }, 'settings cannot be used')
  else log.error({ err }, 'could not start')
  process.exit(1)
})
