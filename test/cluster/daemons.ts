/** Daemons that outlive this process, and how to be sure that a process is one of ours before ending it. */

import { spawn } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isErrorCode, searchPath } from '../../build/machine/exec.ts'
import { readProc, startTimeOf } from '../../build/machine/process.ts'

/** One daemon. A process id alone may have been given to another process since, its start time with it cannot. */
export interface Daemon {
  readonly name: string
  readonly pid: number
  /** Clock ticks since boot, as /proc tells it. */
  readonly startTime: string
  readonly bootId: string
}

export interface DaemonOptions {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  /** Its output is appended here. */
  readonly logFile: string
  /** Name of the network namespace to run in. */
  readonly namespace: string
  /** Marks the process, and those that it starts, as belonging to this cluster. */
  readonly owner: string
}

const OWNER = 'AMBASSADOR_CLUSTER_DIRECTORY'

/**
 * Every daemon is a Go program, and so is what they start in their turn. Collecting garbage only once a heap is five times as large as
 * what lives in it saves a sixth of their time; one that comes near the limit collects as often as it must.
 */
const MEMORY_FOR_TIME = { GOGC: '400', GOMEMLIMIT: '512MiB' }

/** Changes with every boot. */
export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

/** Starts a daemon in a session of its own, in a network namespace. Throws when it cannot be started; it may still end at once. */
export const startDaemon = async (options: DaemonOptions): Promise<Daemon> => {
  const log = openSync(options.logFile, 'a')
  try {
    // nsenter and not `ip netns exec`: that one mounts a new /sys, without the cgroups that the kubelet needs.
    const child = spawn('nsenter', [`--net=/run/netns/${options.namespace}`, options.command, ...options.args], {
      detached: true,
      stdio: ['ignore', log, log],
      env: { PATH: searchPath(), HOME: '/root', LC_ALL: 'C.UTF-8', ...MEMORY_FOR_TIME, [OWNER]: options.owner },
      cwd: '/',
    })
    await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject))
    child.unref()
    const startTime = startTimeOf(child.pid!)
    if (startTime === undefined) throw new Error(`${options.name} ended at once, see ${options.logFile}`)
    return { name: options.name, pid: child.pid!, startTime, bootId: bootId() }
  } finally {
    closeSync(log)
  }
}

/** True while exactly this process runs. */
export const isAlive = (daemon: Daemon): boolean =>
  daemon.bootId === bootId() && startTimeOf(daemon.pid) === daemon.startTime

/** Process ids that carry the mark of `owner`: daemons and what they started, containers excepted (see cgroup.ts). */
export const processesOf = (owner: string): number[] => {
  const mark = `${OWNER}=${owner}`
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && readProc(`/proc/${pid}/environ`)?.split('\0').includes(mark))
}

/** Ends with SIGKILL whatever `find` returns, until it returns nothing. Throws after `timeoutMs`. */
export const killAll = async (find: () => readonly number[], what: string, timeoutMs = 10_000): Promise<void> => {
  const deadline = Date.now() + timeoutMs
  for (let pids = find(); pids.length > 0; pids = find()) {
    if (Date.now() > deadline) throw new Error(`${what}: processes ${pids.join(' ')} do not end`)
    for (const pid of pids) kill(pid)
    await sleep(20)
  }
}

const kill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!isErrorCode(error, 'ESRCH')) throw error
  }
}
