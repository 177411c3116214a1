/** Writes to the handle below a socket of Node's, past what Node calls and makes for each write. */

/** What the handle of a TCP connection or a Unix socket has and Node's types do not show. direct-write.test.ts fails when a new Node changes it. */
export interface DirectHandle {
  /**
   * A number: the kernel has taken everything (0), or has refused (a negated errno). Otherwise the kernel took a part at most, and what
   * is returned hears of the rest; the memory belongs to it until then.
   */
  writeBuffer(request: null, data: Buffer): number | Pending
}

/** A write that libuv finishes. */
interface Pending {
  oncomplete: (this: Pending, status: number) => void
  /** Node writes the reason there when it knows more than the number. */
  readonly error?: string
  owner: WriteOwner
  /** Keeps the memory from the collector. */
  data: Buffer
}

/** Hears of writes that took longer than the call. */
export interface WriteOwner {
  /** The oldest write under way has ended. */
  onWriteEnd(error: Error | null): void
}

/**
 * Since this release a handle makes the object of a write itself, and only for one that takes longer than the call; before it, a call
 * without such an object ends the process. What a later major version does is not known.
 */
const MAJOR = 26
const FIRST_MINOR = 10

/** This Node can do it; otherwise Socket's own way has to be gone. */
export const canWriteDirectly: boolean = isKnown(process.versions.node)

/** Pure: whether a version of Node is one whose handles are known. */
export function isKnown(version: string): boolean {
  const [major, minor = 0] = version.split('.').map(Number)
  return major === MAJOR && minor >= FIRST_MINOR
}

/**
 * Writes all of `data` behind what was written before.
 * @returns true when the kernel has taken it; false when `owner` hears of the end, and `data` must stay as it is until then; an error
 * when the connection cannot be written to, with `code`, `errno` and `syscall` as Node's own errors have them
 */
export function writeDirectly(handle: DirectHandle, data: Buffer, owner: WriteOwner): boolean | Error {
  const said = handle.writeBuffer(null, data)
  if (said === 0) return true
  if (typeof said === 'number') return writeError(said)
  said.oncomplete = onComplete
  said.owner = owner
  said.data = data
  return false
}

function onComplete(this: Pending, status: number): void {
  this.owner.onWriteEnd(status < 0 ? writeError(status, this.error) : null)
}

function writeError(errno: number, detail?: string): Error {
  const code = process.getBuiltinModule('node:util').getSystemErrorName(errno)
  const error = new Error(`write ${code}${detail === undefined ? '' : ` ${detail}`}`)
  return Object.assign(error, { errno, code, syscall: 'write' })
}
