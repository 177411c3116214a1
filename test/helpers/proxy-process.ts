/** The proxy as a process of its own, as a container runs it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { NODE_FLAGS } from '../../cli/proxy-process.ts'
import { programArgs } from './built.ts'
import { freePort } from './ports.ts'

const ROOT = join(import.meta.dirname, '..', '..')

export class ProxyProcess {
  readonly child: ChildProcess
  readonly telemetryPort: number
  readonly adminPort: number
  stdout = ''
  stderr = ''
  /** The exit code, or the signal that killed it. */
  readonly exit: Promise<number | NodeJS.Signals | null>
  /** It has ended, and all that it wrote has been read. */
  #isOver = false

  constructor(child: ChildProcess, telemetryPort: number, adminPort: number) {
    this.child = child
    this.telemetryPort = telemetryPort
    this.adminPort = adminPort
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (this.stdout += text))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
    // `close`, not `exit`: by then everything that it wrote has been read.
    this.exit = once(child, 'close').then(([code, signal]) => {
      this.#isOver = true
      return code ?? signal
    })
  }

  /**
   * Starts it with exactly these variables, and free ports for its own two unless they say others.
   * @param args of Node; `proxy/main.ts` and `cli/main.ts` mean these programs as they are bundled for the image
   * @param within a command that starts what follows it, such as `unshare --pid`
   */
  static async start(
    env: Readonly<Record<string, string>>,
    args: readonly string[] = ['proxy/main.ts'],
    within: readonly string[] = [],
  ) {
    const telemetry = env['AMBASSADOR_TELEMETRY_PORT'] ?? String(await freePort())
    const admin = env['AMBASSADOR_ADMIN_PORT'] ?? String(await freePort())
    const { NODE_COMPILE_CACHE: cache } = process.env
    const compiled = args[0]?.endsWith('.ts') && cache !== undefined ? { NODE_COMPILE_CACHE: cache } : {}
    const [command, ...rest] = [...within, process.execPath, ...NODE_FLAGS, ...(await programArgs(args))]
    const child = spawn(command ?? '', rest, {
      cwd: ROOT,
      env: {
        PATH: process.env['PATH'],
        AMBASSADOR_TELEMETRY_PORT: telemetry,
        AMBASSADOR_ADMIN_PORT: admin,
        ...compiled,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    return new ProxyProcess(child, Number(telemetry), Number(admin))
  }

  /** Lines of the log so far. */
  get log(): Record<string, unknown>[] {
    return (
      this.stdout
        .split('\n')
        // What follows the last line break is the beginning of a line.
        .slice(0, -1)
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line))
    )
  }

  /** Forgets the lines so far, so that logged() waits for new ones. */
  forget(): void {
    this.stdout = this.stdout.slice(this.stdout.lastIndexOf('\n') + 1)
  }

  /** Resolves with the first line of the log for which `is` holds; rejects when the process ends without one. */
  async line(is: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.log.find(is)
      if (found !== undefined) return found
      // Its exit code may be known before its last lines are.
      if (this.#isOver) throw new Error(`it ended without that line: ${this.stdout}${this.stderr}`)
      const stdout = this.child.stdout
      if (stdout !== null) await Promise.race([once(stdout, 'data'), this.exit])
    }
  }

  /** The same for a line with this message. */
  logged(message: string): Promise<Record<string, unknown>> {
    return this.line((line) => line['msg'] === message)
  }

  /** Resolves when it listens for the application. */
  async ready(): Promise<this> {
    await this.logged('config in force')
    return this
  }

  async get(path: string): Promise<{ readonly status: number; readonly body: string }> {
    const answer = await fetch(`http://127.0.0.1:${this.telemetryPort}${path}`)
    return { status: answer.status, body: await answer.text() }
  }

  /** An admin request. */
  async admin(
    method: string,
    path: string,
    body?: string,
  ): Promise<{ readonly status: number; readonly body: string }> {
    const answer = await fetch(`http://127.0.0.1:${this.adminPort}${path}`, { method, body: body ?? null })
    return { status: answer.status, body: await answer.text() }
  }

  /** Kills it, and resolves when it is gone. */
  async end(): Promise<void> {
    this.kill('SIGKILL')
    await this.exit
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }
}
