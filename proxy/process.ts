/** The life of the process: signals, faults that nobody caught, and the code that it ends with. */
import type { Log } from '../common/log.ts'
import type { ProxyApp } from './app.ts'
import type { SidecarMode } from './config/env.ts'
import type { LineWriter } from './observe/line-writer.ts'

/** How the process ends. A graceful stop is 0: anything else would mark the pod as failed. */
export const ExitCode = {
  /** Told to stop, and stopped. */
  ok: 0,
  /** A fault in the program. */
  fault: 1,
  /** A variable, argument or file cannot be used. */
  settings: 2,
  /** A port belongs to another process. */
  port: 3,
} as const

/** SIGTERM comes from kubelet or Docker, SIGINT from a person who waits. */
const ORDER: Readonly<Record<'SIGTERM' | 'SIGINT', SidecarMode | undefined>> = {
  SIGTERM: undefined,
  SIGINT: 'Native',
}

/** Ends a process that serves: by a signal, by POST /quitquitquit, or by a fault. */
export class Lifecycle {
  readonly #log: Log
  #app: ProxyApp | null = null
  #isStopping = false
  readonly #access: LineWriter

  /** `access` is the access log, whose last lines are written before the end. */
  constructor(log: Log, access: LineWriter) {
    this.#log = log
    this.#access = access
  }

  /**
   * Installs the handlers. As process 1 of a container there is no default action for SIGTERM, so without them the process would
   * be killed after the grace period. A second signal ends at once.
   */
  install(): void {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        this.#log.info({ detail: signal }, 'signal received')
        if (this.#isStopping) this.#exit(ExitCode.ok)
        else void this.stop(ORDER[signal])
      })
    }
    // The end of a terminal, which a person closes; to others, a word to read files again.
    process.on('SIGHUP', () => {
      this.#log.info({ detail: 'SIGHUP' }, 'signal received')
      if (process.getBuiltinModule('node:tty').isatty(0)) void this.stop('Native')
      else if (!this.#isStopping) void this.#app?.reload()
    })
    // What nobody expected leaves state that nobody can vouch for: say it and begin anew. kubelet restarts the container.
    process.on('uncaughtException', (err) => this.#fault(err))
    process.on('unhandledRejection', (err) => this.#fault(err))
  }

  /** From now on a stop stops this. */
  adopt(app: ProxyApp): void {
    this.#app = app
  }

  /** Stops in this order (default: that of the sidecar mode) and ends with 0. */
  async stop(order?: SidecarMode): Promise<void> {
    if (this.#isStopping) return
    this.#isStopping = true
    await this.#app?.stop(order)
    this.#exit(ExitCode.ok)
  }

  #exit(code: number): void {
    this.#access.flush()
    process.exit(code)
  }

  #fault(err: unknown): void {
    this.#log.error({ err }, 'unexpected fault, the process ends')
    this.#exit(ExitCode.fault)
  }
}
