/** Processes of the bench: started on one core, watched in /proc, ended with it. */

import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { searchPath } from '../../build/machine/exec.ts'

/** A program that runs until it is stopped. */
export interface Running {
  readonly pid: number
  /** CPU time, in milliseconds, that it had used when it first accepted a connection. */
  readonly startMs: number
  stop(): Promise<void>
}

const started = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of started) for (const pid of tree(child.pid!)) kill(pid)
})

const kill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // ended meanwhile
  }
}

/** Starts a program on one core and waits until it accepts connections. Throws with its last words when it ends before. */
export const start = async (
  core: number,
  command: string,
  args: readonly string[],
  options: { readonly port: number; readonly env?: Readonly<Record<string, string>>; readonly timeoutMs?: number },
): Promise<Running> => {
  const child = spawn('taskset', ['-c', String(core), command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: searchPath(), ...options.env },
  })
  if (child.pid !== undefined) started.add(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (said = `${said}${text}`.slice(-4000)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  child.once('error', () => {})
  const deadline = performance.now() + (options.timeoutMs ?? 15_000)
  while (!(await accepts(options.port))) {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`${command}: has ended:\n${said}`)
    if (performance.now() > deadline) {
      for (const pid of tree(child.pid)) kill(pid)
      throw new Error(`${command}: does not listen on port ${options.port}:\n${said}`)
    }
    await sleep(5)
  }
  return {
    pid: child.pid!,
    startMs: cpuNanos(child.pid!) / 1e6,
    // The tree and not the process alone: a master that is killed leaves its workers, who hold our pipes.
    stop: async () => {
      for (const pid of tree(child.pid!)) kill(pid)
      await ended
      started.delete(child)
    },
  }
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

/** A port on which nobody listens now. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

/** The process and everything that it has started. */
export const tree = (pid: number): number[] => {
  const parents = new Map(
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((name) => [Number(name), statOf(Number(name))?.parent] as const),
  )
  const found = [pid]
  for (const next of found) for (const [child, parent] of parents) if (parent === next) found.push(child)
  return found
}

/** Clock ticks of a second in /proc, which Linux fixes at 100 for what it shows to programs. */
const TICKS = 100

/** CPU time, in seconds, that the process and its descendants have used since they were started. */
export const cpuSeconds = (pid: number): number =>
  tree(pid).reduce((sum, each) => sum + (statOf(each)?.ticks ?? 0), 0) / TICKS

/** The same in nanoseconds, by the scheduler's own count, for what is shorter than a tick. */
const cpuNanos = (pid: number): number =>
  tree(pid).reduce((sum, each) => {
    for (const thread of readdirSync(`/proc/${each}/task`))
      sum += Number(read(`/proc/${each}/task/${thread}/schedstat`)?.split(' ')[0] ?? 0)
    return sum
  }, 0)

/** Anonymous memory in bytes: what a sidecar costs a node, since the pages of the program file are shared. */
export const anonymousBytes = (pid: number): number =>
  tree(pid).reduce((sum, each) => {
    const kilobytes = /^Anonymous:\s+(\d+) kB/m.exec(read(`/proc/${each}/smaps_rollup`) ?? '')?.[1]
    return sum + Number(kilobytes ?? 0) * 1024
  }, 0)

const statOf = (pid: number): { readonly parent: number; readonly ticks: number } | undefined => {
  const stat = read(`/proc/${pid}/stat`)
  if (stat === undefined) return undefined
  // The second field is the program's name in brackets and may itself contain blanks and brackets.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) }
}

const read = (file: string): string | undefined => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined // ended meanwhile
  }
}
