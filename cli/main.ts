/** The CLI: a table of verbs, each in a file of its own that is loaded when it is asked for. */
import { PRODUCT_VERSION } from '../common/names.ts'
import { nearest } from '../operator/webhook/nearest.ts'
import { tuneSoon } from '../proxy/runtime/engine.ts'
import { Exit, UsageError } from './exit.ts'
import { becomeProxy } from './proxy-process.ts'

/** What each file in commands/ exports. */
export interface Verb {
  /** One line for the list of verbs. */
  readonly summary: string
  /** Text of `ambassador VERB --help`. */
  readonly usage: string
  /**
   * Does it. Prints what it has to say and returns the exit code: 0, or 1 when it found a problem.
   * @throws {UsageError} for arguments that it does not understand
   */
  run(args: string[]): Promise<number>
}

/** Every verb. Written out, so that a bundler finds the files. */
const VERBS: Readonly<Record<string, () => Promise<Verb>>> = {
  inject: () => import('./commands/inject.ts'),
  render: () => import('./commands/render.ts'),
  run: () => import('./commands/run.ts'),
  uninject: () => import('./commands/uninject.ts'),
  validate: () => import('./commands/validate.ts'),
  wait: () => import('./commands/wait.ts'),
}

/** Runs the verb that the arguments name and returns the exit code: 0 fine, 1 a problem was found, 2 wrong usage. */
export async function main(args: readonly string[]): Promise<number> {
  const [word = '--help', ...rest] = args
  if (word === '--version' || word === 'version') {
    console.log(PRODUCT_VERSION)
    return Exit.ok
  }
  if (word === '--help' || word === '-h' || (word === 'help' && rest.length === 0)) {
    console.log(await help())
    return args.length === 0 ? Exit.usage : Exit.ok
  }
  const name = word === 'help' ? (rest[0] ?? '') : word
  const load = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined
  if (!load) {
    const meant = nearest(name, Object.keys(VERBS))
    const remedy = meant ? `did you mean ${meant}?` : `use one of ${Object.keys(VERBS).join(', ')}`
    console.error(`ambassador: '${name}' is not a verb, ${remedy}`)
    return Exit.usage
  }
  const verb = await load()
  if (word === 'help' || rest.includes('--help') || rest.includes('-h')) {
    console.log(verb.usage.trim())
    return Exit.ok
  }
  try {
    return await verb.run(rest)
  } catch (error) {
    if (!(error instanceof UsageError) && !isParseArgsError(error)) throw error
    console.error(`ambassador ${name}: ${(error as Error).message}\n\n${verb.usage.trim()}`)
    return Exit.usage
  }
}

async function help(): Promise<string> {
  const lines: string[] = []
  for (const [name, load] of Object.entries(VERBS)) lines.push(`  ${name.padEnd(10)} ${(await load()).summary}`)
  return `ambassador: one small sidecar per pod, one Ambassador per dependency

Usage: ambassador VERB [ARGUMENTS]

${lines.join('\n')}
  ${'version'.padEnd(10)} print the version

\`ambassador VERB --help\` tells more. Exit codes: 0 fine, 1 a problem was found, 2 wrong usage.`
}

/** util.parseArgs throws TypeErrors with these codes for arguments that it does not know. */
function isParseArgsError(error: unknown): boolean {
  return String((error as { code?: unknown } | null)?.code).startsWith('ERR_PARSE_ARGS_')
}

/** What the program does: main() with the arguments of the process, in the kind of process that the verb wants. */
export async function start(): Promise<void> {
  const args = process.argv.slice(2)
  // Before anything else is loaded, since the process begins anew.
  if (args[0] === 'run') {
    becomeProxy()
    tuneSoon()
  }
  process.exitCode = await main(args)
}

if (import.meta.main) await start()
