/** The log of a process: one JSON line per event, a constant message plus keys from one list, secrets redacted. */
import { type DestinationStream, type Logger, pino } from 'pino'

/** Keys that a log line may carry beside time, level, name and msg. A new key is added here first, so that one thing has one word. */
const LOG_KEYS = [
  'ns',
  'ambassador',
  'pod',
  'listener',
  'route',
  'cluster',
  'endpoint',
  'attempt',
  'code',
  'reason',
  'detail',
  'count',
  'port',
  'hash',
  'generation',
  'resource',
  'durationMs',
  'err',
] as const
export type LogKey = (typeof LOG_KEYS)[number]
export type LogFields = { readonly [key in LogKey]?: unknown }

/** What code that logs depends on: pino, or a list in a test. */
export interface Log {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

/** Paths whose values never reach a line, wherever an object that carries them is logged by mistake. */
const SECRETS = ['authorization', 'password', 'token', 'data', 'stringData', 'key', 'clientKey'].flatMap((key) => [
  key,
  `*.${key}`,
  `*.*.${key}`,
  `err.headers.${key}`,
])

export interface LogOptions {
  /** Name of the process in every line. */
  readonly name: string
  /** debug | info | warn | error. Default info. */
  readonly level?: string
  /** Where lines go. Default: standard output, written synchronously so that the last line before an exit is not lost. */
  readonly destination?: DestinationStream
}

/** Makes the log of a process. Lines have `time` in ISO form and `level` as a word. */
export function createLog(options: LogOptions): Logger {
  return pino(
    {
      name: options.name,
      level: options.level ?? 'info',
      base: {},
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
      serializers: { err: serializeError },
    },
    options.destination ?? pino.destination({ dest: 1, sync: true }),
  )
}

/** An error as type, message, code and the messages of its causes; a stack only for what no code of ours expects. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error)
  const code = (error as { code?: unknown }).code
  const expected = code !== undefined || 'status' in error
  return {
    type: error.name,
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
    ...(expected ? {} : { stack: error.stack }),
  }
}

/** Drops everything; for tests and libraries that were given no log. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} }
