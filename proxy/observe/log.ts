/** The log of the proxy: the same lines as common/log.ts writes, without its library, which would cost each sidecar 1.3 MB. */
import { writeSync } from 'node:fs'
import type { Log, LogFields } from '../../common/log.ts'
import type { LOG_LEVELS } from '../../common/names.ts'

export type LogLevel = (typeof LOG_LEVELS)[number]

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 }

export interface ProxyLogOptions {
  /** Default info. */
  readonly level?: LogLevel
  /** Takes one line with its line break. Default: standard output, written before the call returns. */
  readonly write?: (line: string) => void
}

/** A log whose level may be changed while it runs. */
export class ProxyLog implements Log {
  level: LogLevel
  readonly #write: (line: string) => void

  constructor(options: ProxyLogOptions = {}) {
    this.level = options.level ?? 'info'
    this.#write = options.write ?? writeStdout
  }

  debug(fields: LogFields, message: string): void {
    this.#line('debug', fields, message)
  }

  info(fields: LogFields, message: string): void {
    this.#line('info', fields, message)
  }

  warn(fields: LogFields, message: string): void {
    this.#line('warn', fields, message)
  }

  error(fields: LogFields, message: string): void {
    this.#line('error', fields, message)
  }

  #line(level: LogLevel, fields: LogFields, message: string): void {
    if (RANK[level] < RANK[this.level]) return
    const err = fields.err === undefined ? {} : { err: serializeError(fields.err) }
    const time = new Date().toISOString()
    this.#write(`${JSON.stringify({ level, time, name: 'proxy', ...fields, ...err, msg: message })}\n`)
  }
}

/** An error as type, message, code and the messages of its causes; a stack only for what no code of ours expects. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as NodeJS.ErrnoException
  return {
    type: error.name,
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
    ...(code === undefined ? { stack: error.stack } : {}),
  }
}

/** Synchronous, so that the last line before an exit is not lost. A reader that does not keep up loses lines, never requests. */
function writeStdout(line: string): void {
  try {
    writeSync(1, line)
  } catch {
    // EAGAIN: the pipe is full and not ours to wait for; EPIPE: nobody reads.
  }
}
