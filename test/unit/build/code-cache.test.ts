/** How a bundled module becomes a script. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Script } from 'node:vm'
import { asScript } from '../../../build/code-cache.ts'

const evaluate = (script: string, chunks: readonly object[]): unknown => new Script(script).runInThisContext()(chunks)

describe('asScript', () => {
  it('has the names of what was imported and gives what was exported, strict as a module is', () => {
    const { chunks, names, script } = asScript(
      `#!/usr/bin/node\nimport{a as b,c}from"./x-1.mjs";import{d}from"./y-2.mjs";const e=b+c+d,f=function(){return this};export{e as default_,f};`,
    )
    assert.deepEqual(chunks, ['"./x-1.mjs"', '"./y-2.mjs"'])
    assert.deepEqual(names, ['default_', 'f'])
    const made = evaluate(script, [{ a: 1, c: 2 }, { d: 4 }]) as { default_: number; f: () => unknown }
    assert.equal(made.default_, 7)
    const { f } = made
    assert.equal(f(), undefined)
  })

  it('takes a module that imports and exports nothing', () => {
    const { chunks, names, script } = asScript('globalThis.seenByTest=1;')
    assert.deepEqual([chunks, names], [[], []])
    assert.deepEqual(evaluate(script, []), {})
    assert.equal((globalThis as { seenByTest?: number }).seenByTest, 1)
  })

  it('has another do its imports at run time', () => {
    const { script } = asScript('const x=()=>import("./z.mjs");export{x};')
    const { x } = new Script(script).runInThisContext()([], (name: string) => `has ${name}`) as { x: () => unknown }
    assert.equal(x(), 'has ./z.mjs')
  })

  it('refuses what a script cannot say', () => {
    for (const text of ['f(import.meta.url);', 'f();\nexport const x=1;', 'f();\nimport{x}from"./x.mjs";', 'f("–");']) {
      assert.throws(() => asScript(text), /^Error: code cache: the bundle has/)
    }
  })
})
