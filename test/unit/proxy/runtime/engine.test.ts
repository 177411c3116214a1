import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'

const ENGINE = join(import.meta.dirname, '../../../../proxy/runtime/engine.ts')

/** Makes garbage of 64 MB that lives in the old generation, and tells what is left of it when it is collected. */
const SCRIPT = `
const { collector, tuneSoon } = await import(${JSON.stringify(ENGINE)})
const { getHeapStatistics } = await import('node:v8')
const before = collector() === undefined
tuneSoon()
while (collector() === undefined) await new Promise((resolve) => setTimeout(resolve, 10))
let garbage = Array.from({ length: 1_000_000 }, (_, i) => [i, i])
const held = getHeapStatistics().used_heap_size
garbage = null
collector()({ type: 'major', execution: 'sync', flavor: 'last-resort' })
console.log(JSON.stringify({ before, isGlobal: 'gc' in globalThis, freed: held - getHeapStatistics().used_heap_size }))
`

describe('the engine', () => {
  it('gives out its collector a moment after the start, and to nobody else', () => {
    const args = ['--input-type=module', '--eval', SCRIPT]
    const { before, isGlobal, freed } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
    assert.equal(before, true)
    assert.equal(isGlobal, false)
    assert.ok(freed > 30_000_000, `${freed} bytes`)
  })
})
