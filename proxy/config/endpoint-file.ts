/** The list of endpoints in a mounted ConfigMap or a file: read with the other references, the last good one kept. */
import type { RefReport } from '../../common/configz.ts'
import type { DataRef } from '../../common/proxy-config.ts'
import { parseEndpointList } from '../upstream/discovery/endpoint-list.ts'
import type { TargetSource } from '../upstream/discovery/file.ts'
import type { Target } from '../upstream/discovery/name-set.ts'
import { type RefDirs, readRef, refText } from './refs.ts'

export class EndpointFile implements TargetSource {
  readonly #ref: DataRef
  #targets: readonly Target[] | null = null
  #failure: string | null = 'the list of endpoints was not read yet'
  /** What the last reading came to, so that an unchanged file wakes nobody. */
  #content = ''
  readonly #listeners = new Set<() => void>()

  constructor(ref: DataRef) {
    this.#ref = ref
  }

  get targets(): readonly Target[] | null {
    return this.#targets
  }

  get failure(): string | null {
    return this.#failure
  }

  subscribe(onRead: () => void): () => void {
    this.#listeners.add(onRead)
    return () => this.#listeners.delete(onRead)
  }

  /** Reads the file again and says how it was found. */
  refresh(dirs: RefDirs): RefReport {
    const report = this.#read(dirs)
    const failure = report.state === 'Found' ? null : report.message
    const kept = this.#targets === null ? '' : '; the last good list stays in use'
    const content = `${failure} ${JSON.stringify(this.#targets)}`
    this.#failure = failure && failure + kept
    if (content !== this.#content) {
      this.#content = content
      for (const onRead of this.#listeners) onRead()
    }
    return report
  }

  #read(dirs: RefDirs): RefReport {
    const ref = this.#ref
    const value = readRef(ref, dirs)
    if (value.state !== 'Found') return { ref, state: value.state, message: `file: ${value.message}` }
    const list = parseEndpointList(value.bytes.toString('utf8'))
    if (!list.ok) return { ref, state: 'Invalid', message: `file: ${refText(ref)}, ${list.problem}` }
    if (JSON.stringify(list.targets) !== JSON.stringify(this.#targets)) this.#targets = list.targets
    return { ref, state: 'Found', message: '' }
  }
}
