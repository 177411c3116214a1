/** What is in an archive of `docker save`, read without unpacking it. */

import { run } from './machine/exec.ts'

/** One image of an archive. */
export interface ArchivedImage {
  /** Hash of its configuration, without `sha256:`. The same content and settings have the same. */
  readonly id: string
  /** Names with tags. */
  readonly tags: readonly string[]
}

/** Images of an archive. Throws a CommandError when the file is none. */
export const readArchive = async (file: string): Promise<ArchivedImage[]> =>
  parseManifest(await run('tar', ['--extract', '--to-stdout', '--file', file, 'manifest.json']))

/** Pure: the text of manifest.json. `docker save` writes the configuration as `blobs/sha256/ID`, others as `ID.json`. */
export const parseManifest = (text: string): ArchivedImage[] =>
  (JSON.parse(text) as { Config: string; RepoTags: string[] | null }[]).map(({ Config, RepoTags }) => ({
    id: Config.replace(/^.*\//, '').replace(/\.json$/, ''),
    tags: RepoTags ?? [],
  }))
