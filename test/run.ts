/** `npm test`: runs the stages, fast first, and says at the end what passed. */

import { printEnd, printFile, printHeading, printStage } from './runner/print.ts'
import { runStage, type StageReport } from './runner/run-stage.ts'
import { chosen, type Stage, together } from './runner/stages.ts'
import { endAll, type FileReport } from './runner/test-file.ts'

process.chdir(new URL('..', import.meta.url).pathname)
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    endAll()
    process.exit(signal === 'SIGINT' ? 130 : 143)
  })

const isCi = process.env['CI'] === 'true'

const main = async (): Promise<boolean> => {
  const reports: StageReport[] = []
  for (const batch of together(chosen(process.argv.slice(2)))) {
    printHeading(batch.map(({ stage }) => stage.name).join(', '))
    const listener = (stage: Stage) => ({ ended: (file: FileReport) => printFile(file, stage.isSlow) })
    const running = batch.map(({ stage, paths }) => runStage(stage, { paths, isCi, listener: listener(stage) }))
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
