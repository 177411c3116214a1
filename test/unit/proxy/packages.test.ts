import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'

const ROOT = join(import.meta.dirname, '../../..')

/** What is imported as a value; types are gone when the program runs. */
const IMPORT = /^(?:import|export) (?!type\b)[^'"]*?from ['"]([^'"]+)['"]|^import ['"]([^'"]+)['"]/gms

/** Packages that are loaded when `entry` is, and the files that name them. */
function packagesOf(entry: string): Map<string, string> {
  const packages = new Map<string, string>()
  const seen = new Set<string>()
  const open = [entry]
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    if (seen.has(file) || !file.endsWith('.ts')) continue
    seen.add(file)
    for (const match of readFileSync(join(ROOT, file), 'utf8').matchAll(IMPORT)) {
      const specifier = match[1] ?? match[2] ?? ''
      if (specifier.startsWith('.')) open.push(join(dirname(file), specifier))
      else if (!isBuiltin(specifier)) packages.set(specifier, file)
    }
  }
  return packages
}

describe('the sidecar', () => {
  it('loads no package but the codec of DNS messages (docs/adr/0005)', () => {
    assert.deepEqual([...packagesOf('cli/image.ts').keys()], ['dns-packet'])
  })

  it('would be caught loading the schema library', () => {
    assert.ok(packagesOf('common/proxy-config.ts').has('zod'))
  })
})
