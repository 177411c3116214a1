/** How to be sure that a process is the one that was meant: a process id alone may have been given to another since. */

import { readFileSync } from 'node:fs'

/** Start time of a process in clock ticks since boot; undefined when there is no such process, or only its exit status. */
export const startTimeOf = (pid: number): string | undefined => {
  const stat = readProc(`/proc/${pid}/stat`)
  if (stat === undefined) return undefined
  // The second field is the program's name in brackets and may itself contain blanks and brackets.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : fields[19]
}

/** Content of a file of /proc; undefined when the process has ended meanwhile. */
export const readProc = (file: string): string | undefined => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined // the process ended meanwhile, or is a kernel thread
  }
}
