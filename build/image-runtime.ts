/** What an image says to Node, read from its Dockerfile, which is the one place where that stands. */
import { readFileSync } from 'node:fs'

export interface ImageRuntime {
  /** Arguments of Node in front of the program. */
  readonly flags: readonly string[]
  /** Environment of the image, without PATH. */
  readonly env: Readonly<Record<string, string>>
}

/** Throws when the file has no ENTRYPOINT in brackets that begins with `node`. */
export const imageRuntime = (dockerfile: string): ImageRuntime => parseRuntime(readFileSync(dockerfile, 'utf8'))

/** Pure: the same of the text. The last ENTRYPOINT and ENV count, which are those of the image. */
export const parseRuntime = (text: string): ImageRuntime => {
  const entrypoint = [...text.matchAll(/^ENTRYPOINT (\[.*\])$/gm)].at(-1)?.[1]
  const [program, ...flags] = entrypoint === undefined ? [] : (JSON.parse(entrypoint) as string[])
  if (program !== 'node') throw new Error('dockerfile: has no ENTRYPOINT ["node", ...], adapt what reads it')
  const words = [...text.matchAll(/^ENV (.*)$/gm)].at(-1)?.[1]?.split(' ') ?? []
  const env = Object.fromEntries(words.map((word) => word.split('=', 2) as [string, string]))
  delete env['PATH']
  return { flags, env }
}
