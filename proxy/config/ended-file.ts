/** Notices that the application has ended: a file that kubelet writes from an annotation of the pod. */
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { FileWatcher, type WatchOptions } from './watch.ts'

/**
 * Calls back once, when the file is not empty: it says since when the application has ended. A file that is not there says nothing.
 * @returns ends it
 */
export function watchEnded(path: string, onEnded: (since: string) => void, options: WatchOptions = {}): () => void {
  const look = (): void => {
    let since = ''
    try {
      since = readFileSync(path, 'utf8').trim()
    } catch {
      // kubelet writes the volume before the container starts; elsewhere the file may come later.
    }
    if (since === '') return
    watcher.close()
    onEnded(since)
  }
  const watcher = new FileWatcher(look, options)
  watcher.setPaths([dirname(path)])
  look()
  return () => watcher.close()
}
