/** Random bytes of the kernel, without OpenSSL: loading it costs each sidecar 1.4 MB and ten milliseconds of its start. */
import { openSync, readSync } from 'node:fs'

const SOURCE = '/dev/urandom'

/** Opened once: a thousand ids are two reads. -1: not yet; null: there is none. */
let fd: number | null = -1

/** Fills `target` with bytes that nobody can guess. Takes them from Node's own generator where there is no /dev/urandom. */
export function fillRandom(target: Buffer): void {
  if (fd === -1) fd = open()
  if (fd === null || readSync(fd, target, 0, target.length, null) !== target.length) {
    process.getBuiltinModule('node:crypto').randomFillSync(target)
  }
}

function open(): number | null {
  try {
    return openSync(SOURCE, 'r')
  } catch {
    return null
  }
}
