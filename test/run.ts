/** `npm test`: runs the stages, fast first, and says at the end what passed. */

import { printEnd, printFile, printHeading, printStage } from './runner/print.ts'
import { runStage, type StageReport } from './runner/run-stage.ts'
import { chosen } from './runner/stages.ts'
import { endAll } from './runner/test-file.ts'

process.chdir(new URL('..', import.meta.url).pathname)
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    endAll()
    process.exit(signal === 'SIGINT' ? 130 : 143)
  })

const isCi = process.env['CI'] === 'true'

const main = async (): Promise<boolean> => {
  const reports: StageReport[] = []
  for (const { stage, paths } of chosen(process.argv.slice(2))) {
    printHeading(stage.name)
    const report = await runStage(stage, {
      paths,
      isCi,
      listener: { ended: (file) => printFile(file, stage.isSlow) },
    })
    printStage(report)
    reports.push(report)
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
