/** Our own source files as text, for tests that hold them to the rules of docs/architecture.md. */

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'

export interface SourceFile {
  /** From the top of the repository, with slashes. */
  readonly path: string
  /** Code alone: comments are blanked, lines keep their number. */
  readonly lines: readonly string[]
  /** Paths of our own files that it imports, types included. */
  readonly imports: readonly string[]
  /** Packages that it imports; Node's own begin with `node:`. */
  readonly packages: readonly string[]
}

const ROOT = join(import.meta.dirname, '../..')

/** Every *.ts below the folders. */
export const sourceFiles = (folders: readonly string[]): SourceFile[] =>
  folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .sort()
      .map((name) => readSource(join(folder, name), readFileSync(join(ROOT, folder, name), 'utf8'))),
  )

/** Takes one file apart. `path` is where it stands in the repository. */
export const readSource = (path: string, text: string): SourceFile => {
  const code = withoutComments(text)
  const specifiers = [...code.matchAll(IMPORT)]
    .map((match) => match[1] ?? match[2] ?? match[3] ?? '')
    .filter((specifier) => !specifier.startsWith('/')) // text of a program that is written into an image
  return {
    path,
    lines: code.split('\n'),
    imports: specifiers.filter(isRelative).map((specifier) => normalize(join(dirname(path), specifier))),
    packages: specifiers.filter((specifier) => !isRelative(specifier)).map(packageOf),
  }
}

// import x from '…', export … from '…', import '…', import('…')
const IMPORT =
  /^(?:import|export|\})[^'"\n]*\bfrom\s+['"]([^'"]+)['"]|^import\s+['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm

const isRelative = (specifier: string): boolean => specifier.startsWith('.')

const packageOf = (specifier: string): string =>
  specifier.startsWith('node:')
    ? specifier
    : specifier
        .split('/')
        .slice(0, specifier.startsWith('@') ? 2 : 1)
        .join('/')

// Strings stand before comments in the alternation, so that `'http://x'` is no comment. A regular expression with a quote
// or two slashes in it could fool this; none of the rules that use it depends on what follows on that line.
const TOKEN = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g

const withoutComments = (text: string): string =>
  text.replaceAll(TOKEN, (token) => (token.startsWith('/') ? token.replaceAll(/[^\n]/g, ' ') : token))
