/** The log of `ambassador run`: JSON lines, or lines for a person when it writes to a terminal. */
import { writeSync } from 'node:fs'
import { styleText } from 'node:util'
import { type LogLevel, ProxyLog } from '../proxy/observe/log.ts'

const COLORS = { debug: 'gray', info: 'cyan', warn: 'yellow', error: 'red' } as const

/** Keys that a person does not need in front of every line. */
const QUIET = new Set(['level', 'time', 'name', 'msg', 'ns', 'ambassador', 'err'])

/** Makes the log; `isTerminal` says for whom. */
export function runLog(level: LogLevel, isTerminal: boolean): ProxyLog {
  if (!isTerminal) return new ProxyLog({ level })
  return new ProxyLog({ level, write: (line) => writeSync(1, `${forPerson(line)}\n`) })
}

/** `09:00:00 warn  payments: config not in force (reason=Invalid)` */
function forPerson(line: string): string {
  const fields = JSON.parse(line) as Record<string, unknown> & { level: LogLevel; time: string; msg: string }
  const { level, time, msg, ambassador, err } = fields
  const rest = Object.entries(fields).filter(([key, value]) => !QUIET.has(key) && value !== null && value !== '')
  const more = rest.map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  const error = (err as { message?: string } | undefined)?.message
  if (error !== undefined) more.push(error)
  const subject = ambassador === undefined ? '' : `${String(ambassador)}: `
  const tail = more.length === 0 ? '' : styleText('gray', ` (${more.join(', ')})`)
  return `${time.slice(11, 19)} ${styleText(COLORS[level], level.padEnd(5))} ${subject}${msg}${tail}`
}
