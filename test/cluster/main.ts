/** `npm run cluster -- up | down | load | kubeconfig | status | doctor`. */

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { printed } from '../../build/machine/progress.ts'
import { down, running, up } from './cluster.ts'
import { doctor } from './doctor.ts'
import { status } from './status.ts'

const USAGE = `usage: npm run cluster -- COMMAND [--name NAME]

  up [--nodes 1|2]      bring up a real Kubernetes on this machine, or reuse the running one
  down                  remove it with everything in it
  load FILE.tar...      make images known to it, from docker archives (npm run images)
  kubeconfig [--raw]    print the path of its kubeconfig, or the file itself
  status                print its processes, addresses and nodes
  doctor                say what this machine lacks

  --name NAME           which cluster (default: dev); several may run side by side
`

const main = async (args: string[]): Promise<number> => {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      name: { type: 'string', default: 'dev' },
      nodes: { type: 'string', default: '1' },
      raw: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const [command, ...files] = positionals
  const progress = printed()
  const { name } = values
  if (command === undefined || values.help) {
    process.stdout.write(USAGE)
    return values.help ? 0 : 2
  }
  switch (command) {
    case 'up': {
      const start = performance.now()
      const cluster = await up({ name, nodes: Number(values.nodes), progress })
      progress.note(`up after ${((performance.now() - start) / 1000).toFixed(1)} s, use it with:`)
      process.stdout.write(`export KUBECONFIG=${cluster.kubeconfig} PATH=${directoryOf(cluster.binaries)}:$PATH\n`)
      return 0
    }
    case 'down':
      await progress.step(`cluster '${name}' taken down`, () => down(name))
      return 0
    case 'load':
      if (files.length === 0) throw new Error(`load: no file given, run: npm run cluster -- load dist/images/*.tar`)
      for (const file of files) await progress.step(`image ${file}`, () => running(name).loadImage(file))
      return 0
    case 'kubeconfig': {
      const { kubeconfig } = running(name)
      process.stdout.write(values.raw ? readFileSync(kubeconfig, 'utf8') : `${kubeconfig}\n`)
      return 0
    }
    case 'status':
      process.stdout.write(await status(name))
      return 0
    case 'doctor': {
      const { text, isComplete } = await doctor()
      process.stdout.write(text)
      return isComplete ? 0 : 1
    }
    default:
      process.stderr.write(`command '${command}' is unknown\n\n${USAGE}`)
      return 2
  }
}

const directoryOf = ({ kubectl, helm }: { kubectl: string; helm: string }): string =>
  [kubectl, helm].map((file) => file.slice(0, file.lastIndexOf('/'))).join(':')

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}
