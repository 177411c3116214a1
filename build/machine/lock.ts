/** A lock between processes that a killed owner cannot leave behind. */

import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isErrorCode } from './exec.ts'
import { startTimeOf } from './process.ts'

const POLL_MS = 200

/** Runs `work` while holding `file`. Waits without limit for a living owner; takes over from a dead one. `onWait` is told once, with the owner's process id. */
export const withLock = async <T>(
  file: string,
  work: () => Promise<T>,
  onWait: (owner: number) => void = () => {},
): Promise<T> => {
  mkdirSync(dirname(file), { recursive: true })
  let told = false
  while (!tryLock(file)) {
    const owner = ownerOf(file)
    if (owner === undefined) continue
    if (!told) onWait(owner)
    told = true
    await sleep(POLL_MS)
  }
  try {
    return await work()
  } finally {
    rmSync(file, { force: true })
  }
}

// A hard link appears with its content or not at all, so that nobody reads a lock without an owner.
const tryLock = (file: string): boolean => {
  const mine = `${file}.${process.pid}`
  writeFileSync(mine, `${process.pid} ${startTimeOf(process.pid)}`)
  try {
    linkSync(mine, file)
    return true
  } catch (error) {
    if (isErrorCode(error, 'EEXIST')) return false
    throw error
  } finally {
    rmSync(mine, { force: true })
  }
}

/** The living owner's process id; undefined when the lock is free or its owner was dead, in which case the lock is removed. */
const ownerOf = (file: string): number | undefined => {
  const content = read(file)
  if (content === undefined) return undefined
  const [pid = '', startTime = ''] = content.split(' ')
  if (startTime !== '' && startTimeOf(Number(pid)) === startTime) return Number(pid)
  removeStale(file, content)
  return undefined
}

// Two waiters may see the same dead owner, and the slower one must not take away the lock that the faster one just got:
// so the file is moved aside first, and put back if it is not the one that was judged dead.
const removeStale = (file: string, stale: string): void => {
  const aside = `${file}.${process.pid}.stale`
  try {
    renameSync(file, aside)
  } catch (error) {
    if (isErrorCode(error, 'ENOENT')) return
    throw error
  }
  if (read(aside) !== stale) linkSync(aside, file)
  rmSync(aside, { force: true })
}

const read = (file: string): string | undefined => {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (isErrorCode(error, 'ENOENT')) return undefined
    throw error
  }
}
