/** `npm test`: runs the stages, fast first, and says at the end what passed. */

import { join } from 'node:path'
import { printEnd, printFile, printHeading, printStage } from './runner/print.ts'
import { prepareStage, runStage, type StageReport } from './runner/run-stage.ts'
import { chosen, together } from './runner/stages.ts'
import { endAll, type FileReport } from './runner/test-file.ts'

process.chdir(new URL('..', import.meta.url).pathname)
// Some hundreds of processes are started from the same sources: each is compiled once. It is half of what a short one costs.
process.env['NODE_COMPILE_CACHE'] ??= join(process.cwd(), 'node_modules/.cache/compile')
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    endAll()
    process.exit(signal === 'SIGINT' ? 130 : 143)
  })

const isCi = process.env['CI'] === 'true'

const main = async (): Promise<boolean> => {
  const reports: StageReport[] = []
  const batches = together(chosen(process.argv.slice(2)))
  const prepared = (at: number) => batches[at]?.map(({ stage, paths }) => prepareStage(stage, { paths, isCi })) ?? []
  let next = prepared(0)
  for (const [at, batch] of batches.entries()) {
    const ready = next
    printHeading(batch.map(({ stage }) => stage.name).join(', '))
    const running = batch.map(({ stage, paths }, of) => {
      const listener = { ended: (file: FileReport) => printFile(file, stage.isSlow) }
      return runStage(stage, { paths, isCi, listener, prepared: ready[of] })
    })
    // A cluster comes up while the tests before it run.
    next = prepared(at + 1)
    for (const report of await Promise.all(running)) {
      printStage(report)
      reports.push(report)
    }
  }
  if (reports.every(({ results }) => results.length === 0)) process.stderr.write('no test ran\n')
  printEnd(reports)
  const results = reports.flatMap((report) => report.results)
  return results.some(({ outcome }) => outcome === 'passed') && !results.some(({ outcome }) => outcome === 'failed')
}

try {
  process.exitCode = (await main()) ? 0 : 1
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
