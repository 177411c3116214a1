import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Env } from '../../../common/names.ts'
import { PlainEnv } from '../../../proxy/config/env.ts'
import { ExitCode } from '../../../proxy/process.ts'

const ROOT = join(import.meta.dirname, '../../..')
const page = readFileSync(join(ROOT, 'docs/sidecar.md'), 'utf8')

/** First cells of the rows of the page's tables, as code. */
const documented = [...page.matchAll(/^\| (`[^|]*) \|/gm)].flatMap((row) =>
  [...(row[1] ?? '').matchAll(/`([^`]+)`/g)].map((cell) => cell[1] ?? ''),
)

describe('docs/sidecar.md', () => {
  it('has every variable, and no other', () => {
    const variables = [...Object.values(PlainEnv), ...Object.values(Env)].sort()
    assert.deepEqual(documented.filter((name) => /^[A-Z][A-Z_]+$/.test(name)).sort(), variables)
  })

  it('has every exit code', () => {
    const codes = Object.values(ExitCode).map(String)
    assert.deepEqual(
      documented.filter((name) => /^\d+$/.test(name)),
      codes,
    )
  })

  it('has every metric, and no other', () => {
    const source = readFileSync(join(ROOT, 'proxy/observe/metrics.ts'), 'utf8')
    const metrics = [
      ...new Set([...source.matchAll(/'((?:ambassador|process)_[a-z_]+)'/g)].map((match) => match[1] ?? '')),
    ]
    const named = [...page.matchAll(/`((?:ambassador|process)_[a-z_]+)`/g)].map((match) => match[1] ?? '')
    assert.deepEqual([...new Set(named)].sort(), metrics.sort())
  })
})
