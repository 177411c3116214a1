/** Runs commands to their end, with an error that says which command failed and what it said last. */

import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** A command that could not be started, failed, or took too long. `stderr` is all of what it wrote there. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  readonly command: string
  readonly exitCode: number | undefined
  readonly stderr: string

  constructor(command: string, why: string, stderr: string, exitCode?: number) {
    const said = stderr.trim().split('\n').slice(-8).join('\n  ')
    super(`command '${command}' ${why}${said === '' ? '' : `:\n  ${said}`}`)
    this.command = command
    this.exitCode = exitCode
    this.stderr = stderr
  }
}

export interface RunOptions {
  readonly cwd?: string
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>
  /** Written to the standard input. Default: none. */
  readonly input?: string
  /** Ends the command with SIGKILL. Default: no limit. */
  readonly timeoutMs?: number
}

/** Daemons and `ip` live in /usr/sbin, which is not on every user's PATH. */
export const searchPath = (): string =>
  [process.env['PATH'] ?? '', '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'].join(delimiter)

/** Runs a command and returns its standard output. Throws a CommandError when it does not exit with 0. */
export const run = (command: string, args: readonly string[], options: RunOptions = {}): Promise<string> =>
  new Promise((resolve, reject) => {
    const line = [command, ...args].join(' ')
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, PATH: searchPath(), LC_ALL: 'C.UTF-8', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.stdin.on('error', () => {}) // the command may end without having read its input
    child.stdin.end(options.input)
    child.on('error', (error) => reject(new CommandError(line, `cannot be started (${error.message})`, '')))
    child.on('close', (code, signal) => {
      if (code === 0) resolve(stdout)
      else if (signal !== null) reject(new CommandError(line, `was ended by ${signal}`, stderr))
      else reject(new CommandError(line, `failed with exit code ${code}`, stderr || stdout, code ?? undefined))
    })
  })

/** True when the command exits with 0. */
export const succeeds = async (
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<boolean> => {
  try {
    await run(command, args, options)
    return true
  } catch (error) {
    if (error instanceof CommandError) return false
    throw error
  }
}

/** The full path of a program, or undefined. */
export const which = (program: string, path: string = searchPath()): string | undefined => {
  for (const directory of path.split(delimiter)) {
    if (directory === '') continue
    const file = join(directory, program)
    try {
      accessSync(file, constants.X_OK)
      return file
    } catch {
      // not here: the next folder
    }
  }
  return undefined
}

/** True for an error of the operating system with this code (`ENOENT`, `EEXIST`, …). */
export const isErrorCode = (error: unknown, code: string): boolean =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === code
