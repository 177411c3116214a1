/** Text in, text out: the go.mod from which a program is built as a dependency of an otherwise empty module. */

import type { Program } from './versions.ts'

/** What of a go.mod must be said again by whoever builds the module as a dependency. */
export interface ModuleFacts {
  /** Version of the language, as in `go 1.24.0`. */
  readonly go: string
  /** Lines of `godebug`, which only the main module may set. */
  readonly godebug: readonly string[]
  /** Modules that are replaced by a folder of the same repository: another version of them must be named. */
  readonly staging: readonly string[]
}

/** Reads the facts from a go.mod. Throws when it names no version of Go. */
export const readGoMod = (text: string): ModuleFacts => {
  const lines = directives(text)
  const go = lines.find((line) => line.startsWith('go '))?.slice('go '.length)
  if (go === undefined) throw new Error(`go.mod: no line 'go VERSION'`)
  return {
    go,
    godebug: lines.filter((line) => line.startsWith('godebug ')),
    staging: lines.flatMap((line) => /^replace (\S+)(?: \S+)? => \.\.?\/\S+$/.exec(line)?.[1] ?? []),
  }
}

/** One directive a line, `verb (` blocks unfolded, comments dropped. */
const directives = (text: string): string[] => {
  const out: string[] = []
  let block: string | undefined
  for (const raw of text.split('\n')) {
    const line = raw
      .replace(/\/\/.*$/, '')
      .trim()
      .replaceAll(/\s+/g, ' ')
    if (line === '') continue
    if (line === ')') block = undefined
    else if (block !== undefined) out.push(`${block} ${line}`)
    else if (line.endsWith(' (')) block = line.slice(0, -' ('.length)
    else out.push(line)
  }
  return out
}

/** The go.mod of an empty module that requires the program's. Kubernetes v1.X.Y publishes each of its staging folders as v0.X.Y; other modules publish theirs under their own version. */
export const renderGoMod = (program: Program, facts: ModuleFacts): string =>
  [
    `module ambassador.test/${program.name}`,
    `go ${facts.go}`,
    ...facts.godebug,
    `require ${program.module} ${program.version}`,
    ...facts.staging
      .filter((module) => module.startsWith('k8s.io/'))
      .map((module) => `replace ${module} => ${module} ${program.version.replace(/^v1\./, 'v0.')}`),
    '',
  ].join('\n')

/** The oldest Go that fetches by itself the newer toolchain that a module asks for. */
export const OLDEST_GO = '1.21'

/** True when `go version` tells a version that can build everything. */
export const isNewEnough = (goVersion: string): boolean => {
  const [, major, minor] = /\bgo(\d+)\.(\d+)/.exec(goVersion) ?? []
  const [oldestMajor, oldestMinor] = OLDEST_GO.split('.').map(Number) as [number, number]
  return Number(major) > oldestMajor || (Number(major) === oldestMajor && Number(minor) >= oldestMinor)
}
