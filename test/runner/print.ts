/** What `npm test` prints: short while it goes well, failures in full. */

import type { StageReport } from './run-stage.ts'
import type { FileReport, TestResult } from './test-file.ts'

const isColoured = process.stdout.isTTY && process.env['NO_COLOR'] === undefined
const paint = (code: string) => (text: string) => (isColoured ? `\x1b[${code}m${text}\x1b[0m` : text)
const red = paint('31')
const green = paint('32')
const yellow = paint('33')
const dim = paint('2')
const bold = paint('1')

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

export const count = (
  results: readonly TestResult[],
): { readonly passed: number; readonly failed: number; readonly skipped: number } => {
  const of = (outcome: TestResult['outcome']): number => results.filter((r) => r.outcome === outcome).length
  return { passed: of('passed'), failed: of('failed'), skipped: of('skipped') }
}

/** `N passed, N failed, N skipped`. */
export const sum = (results: readonly TestResult[]): string => {
  const { passed, failed, skipped } = count(results)
  return `${passed} passed, ${failed} failed, ${skipped} skipped`
}

export const printHeading = (name: string): void =>
  say(bold(`\n── ${name} ${'─'.repeat(Math.max(0, 60 - name.length))}`))

/** What did not pass; the echoes of another failure are only counted, unless nothing else says why. */
const worthTelling = (results: readonly TestResult[]): { told: readonly TestResult[]; echoes: number } => {
  const notPassed = results.filter(({ outcome }) => outcome !== 'passed')
  const told = notPassed.filter(({ isEcho }) => !isEcho)
  if (!told.some(({ outcome }) => outcome === 'failed')) return { told: notPassed, echoes: 0 }
  return { told, echoes: notPassed.length - told.length }
}

/** A line for a file when the stage is slow; whatever failed or was skipped in any case. */
export const printFile = (report: FileReport, isSlow: boolean): void => {
  const { failed } = count(report.results)
  if (isSlow)
    say(
      `${failed > 0 ? red('✗') : green('✓')} ${report.file} ${dim(`${report.results.length} in ${time(report.durationMs)}`)}`,
    )
  const { told, echoes } = worthTelling(report.results)
  for (const result of told) {
    const isFailed = result.outcome === 'failed'
    say(`${isFailed ? red('FAILED ') : yellow('SKIPPED')} ${result.title}`)
    if (result.detail !== '') say(indent(result.detail))
  }
  if (echoes > 0) say(`${red('FAILED ')} ${echoes} more because of that`)
  if (failed > 0 && report.output.trim() !== '') say(`${dim('  it wrote:')}\n${indent(report.output.trimEnd())}`)
}

export const printStage = (report: StageReport): void =>
  say(`${report.stage}: ${sum(report.results)} ${dim(`in ${time(report.durationMs)}`)}`)

/** The overview at the end; its last line is exactly `N passed, N failed, N skipped`. */
export const printEnd = (reports: readonly StageReport[]): void => {
  const all = reports.flatMap(({ results }) => results)
  say(bold(`\n── all ${'─'.repeat(57)}`))
  for (const { stage, results, durationMs } of reports)
    say(`${stage.padEnd(10)} ${time(durationMs).padStart(9)}  ${sum(results)}`)
  for (const { outcome, title } of worthTelling(all).told) if (outcome === 'failed') say(`${red('FAILED')} ${title}`)
  process.stdout.write(`${sum(all)}\n`)
}

const time = (ms: number): string =>
  ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`
const indent = (text: string): string => text.replaceAll(/^/gm, '    ')
