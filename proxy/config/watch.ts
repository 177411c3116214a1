/** Notices that mounted files changed: the `..data` swap of kubelet, and plain files outside Kubernetes. */
import { type FSWatcher, lstatSync, readdirSync, readlinkSync, statSync, watch } from 'node:fs'
import { dirname, join } from 'node:path'

export interface WatchOptions {
  /** A change is reported when nothing more has happened for this long. Default 50 ms. */
  readonly debounceMs?: number
  /** Everything is compared this often, whatever the kernel reports. Default 10 s. */
  readonly pollMs?: number
  /** The same, while the kernel refuses to watch. Default 2 s. */
  readonly pollWithoutWatchMs?: number
}

/** How many times the quiet that it waits for a change may be put off. */
const MAX_DEBOUNCES = 20

/**
 * Watches files and directories and calls back when their content may have changed.
 *
 * kubelet writes a volume as `..2026_11_21.123/` and then renames a symbolic link `..data` onto it, and `key` is a link to
 * `..data/key`. So neither the file nor the directory that it resolves to is ever written: the directory that holds `..data` is
 * watched, and editors that replace a file by renaming are seen in the same way.
 *
 * The poll is not a formality: inotify instances are counted per user on a node (128 by default), and all sidecars of a node run as
 * the same user, so the kernel may refuse to watch; and a directory that does not exist yet cannot be watched.
 */
export class FileWatcher {
  readonly #onChange: () => void
  /** Of the first of the events that wait for quiet. */
  #wokenAt = 0
  readonly #debounceMs: number
  readonly #pollMs: number
  readonly #pollWithoutWatchMs: number
  /** Path → what it looked like when it was last reported. */
  readonly #seen = new Map<string, string>()
  /** Directory → its watch, with the inode that it was made for (a directory may be replaced by another of the same name). */
  readonly #watches = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>()
  #debounce: NodeJS.Timeout | null = null
  #poll: NodeJS.Timeout | null = null
  #refused = false
  #closed = false

  constructor(onChange: () => void, options: WatchOptions = {}) {
    this.#onChange = onChange
    this.#debounceMs = options.debounceMs ?? 50
    this.#pollMs = options.pollMs ?? 10_000
    this.#pollWithoutWatchMs = options.pollWithoutWatchMs ?? 2_000
  }

  /**
   * Paths that are watched now are exactly these: directories (their entries) or files. Paths that do not exist may appear later.
   * @returns whether one of them is new: what was read from it before may have changed since, unseen, so read it again
   */
  setPaths(paths: Iterable<string>): boolean {
    if (this.#closed) return false
    let isNew = false
    const wanted = new Set(paths)
    for (const path of this.#seen.keys()) if (!wanted.has(path)) this.#seen.delete(path)
    for (const path of wanted) {
      if (this.#seen.has(path)) continue
      this.#seen.set(path, fingerprint(path))
      isNew = true
    }
    this.#arm()
    this.#schedulePoll()
    return isNew
  }

  /** Ends it; no call comes after. Idempotent. */
  close(): void {
    this.#closed = true
    if (this.#debounce !== null) clearTimeout(this.#debounce)
    if (this.#poll !== null) clearTimeout(this.#poll)
    for (const { watcher } of this.#watches.values()) watcher.close()
    this.#watches.clear()
  }

  /** Watches the directories that matter: each path that is a directory, and else the nearest one above it that exists. */
  #arm(): void {
    const wanted = new Map<string, number>()
    for (const path of this.#seen.keys()) {
      for (let directory = path; ; directory = dirname(directory)) {
        const inode = directoryInode(directory)
        if (inode !== null) wanted.set(directory, inode)
        if (inode !== null || dirname(directory) === directory) break
      }
    }
    for (const [directory, { watcher, inode }] of this.#watches) {
      if (wanted.get(directory) === inode) continue
      watcher.close()
      this.#watches.delete(directory)
    }
    this.#refused = false
    for (const [directory, inode] of wanted) {
      if (this.#watches.has(directory)) continue
      try {
        const watcher = watch(directory, { persistent: false }, () => this.#wake())
        watcher.on('error', () => {
          watcher.close()
          this.#watches.delete(directory)
          this.#wake()
        })
        this.#watches.set(directory, { watcher, inode })
      } catch {
        this.#refused = true
      }
    }
  }

  #wake(): void {
    if (this.#closed) return
    const time = performance.now()
    if (this.#debounce === null) this.#wokenAt = time
    // A neighbour that is written all the time, such as a log, must not put it off for ever.
    else if (time - this.#wokenAt >= MAX_DEBOUNCES * this.#debounceMs) return
    else clearTimeout(this.#debounce)
    this.#debounce = setTimeout(() => this.#compare(), this.#debounceMs)
    this.#debounce.unref()
  }

  #schedulePoll(): void {
    if (this.#poll !== null) clearTimeout(this.#poll)
    this.#poll = setTimeout(() => this.#compare(), this.#refused ? this.#pollWithoutWatchMs : this.#pollMs)
    this.#poll.unref()
  }

  #compare(): void {
    if (this.#closed) return
    if (this.#debounce !== null) clearTimeout(this.#debounce)
    this.#debounce = null
    let changed = false
    for (const [path, before] of this.#seen) {
      const after = fingerprint(path)
      if (after === before) continue
      this.#seen.set(path, after)
      changed = true
    }
    this.#arm()
    this.#schedulePoll()
    if (changed) this.#onChange()
  }
}

/** A text that differs when the content may differ. For a volume of kubelet the target of `..data` says it all. */
function fingerprint(path: string): string {
  try {
    const stat = statSync(path)
    if (!stat.isDirectory()) return fileMark(path)
    try {
      return `${stat.ino}>${readlinkSync(join(path, '..data'))}`
    } catch {
      return `${stat.ino}:${readdirSync(path)
        .sort()
        .map((entry) => `${entry}=${fileMark(join(path, entry))}`)
        .join(',')}`
    }
  } catch {
    return 'absent'
  }
}

/** Of a file, through links: also of the link itself, so that a link that is turned to an equal-looking file is seen. */
function fileMark(path: string): string {
  try {
    const { ino, size, mtimeMs, ctimeMs } = statSync(path)
    const link = lstatSync(path)
    return `${ino}.${size}.${mtimeMs}.${ctimeMs}.${link.ino}`
  } catch {
    return 'absent'
  }
}

function directoryInode(path: string): number | null {
  try {
    const stat = statSync(path)
    return stat.isDirectory() ? stat.ino : null
  } catch {
    return null
  }
}
