/** What a relayed request costs, counted: the same on every machine, however busy it is. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { type Cost, compare } from '../../cost/cost.ts'
import { PATHS } from '../../cost/paths.ts'

const ROOT = join(import.meta.dirname, '../../..')
const FILE = join(ROOT, 'test/golden/cost.json')
const PROGRAM = 'test/cost/program.ts'
const REMEDY = `UPDATE_GOLDEN=1 npm test -- ${relative(ROOT, import.meta.filename)}`

/** What was counted when the file was written. */
interface Written {
  readonly node: string
  readonly costs: Readonly<Record<string, Cost>>
}

/**
 * Interpreted code does what compiled code does, and does it in every run. The collector has memory enough to stay away, and no threads or
 * tasks that wake the event loop.
 */
const FLAGS = [
  ...['--no-opt', '--no-maglev', '--no-sparkplug', '--no-flush-bytecode'],
  ...['--min-semi-space-size=64', '--max-semi-space-size=64'],
  ...['--single-threaded-gc', '--no-incremental-marking', '--no-memory-reducer'],
]

const count = async (cases: readonly string[]): Promise<Record<string, Cost>> => {
  // What a cache has compiled does not count itself.
  const { NODE_COMPILE_CACHE: _, NODE_OPTIONS: __, ...env } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, [...FLAGS, PROGRAM, ...cases], { cwd: ROOT, env })
  return JSON.parse(stdout)
}

/** A line for each function, so that a difference of two versions says what has changed. */
const textOf = (written: Written): string =>
  JSON.stringify(written, null, 2).replace(/\[\n\s+([\d.]+),\n\s+([\d.]+)\n\s+\]/g, '[$1, $2]') + '\n'

// Five seconds of CPU time, which a busy machine makes a minute of.
describe('the cost of a relayed request', { timeout: 240_000 }, () => {
  let costs: Record<string, Cost>
  let written: Written

  before(async () => {
    const names = PATHS.map(({ name }) => name)
    // What is written down comes first, in this order: virtual time goes on from one to the next.
    costs = await count([...names, 'http+work', 'tcp+write'])
    if (process.env['UPDATE_GOLDEN'] === '1') {
      const paths = Object.fromEntries(names.map((name) => [name, costs[name]!]))
      writeFileSync(FILE, textOf({ node: process.version, costs: paths }))
    }
    assert.ok(existsSync(FILE), `${relative(ROOT, FILE)} is missing, write it with ${REMEDY}`)
    written = JSON.parse(readFileSync(FILE, 'utf8'))
  })

  it('was written down for this version of Node, whose own functions are counted too', () => {
    assert.equal(process.version, written.node, `count anew, and read the difference: ${REMEDY}`)
  })

  for (const { name } of PATHS)
    it(`is what is written down for ${name}`, () => {
      const was = written.costs[name]
      assert.ok(was, `${relative(ROOT, FILE)} does not have '${name}', write it with ${REMEDY}`)
      const lines = compare(costs[name]!, was)
      assert.equal(lines.length, 0, `${name}: ${lines.join('\n')}\nif that is meant: ${REMEDY}`)
    })

  it('is more with a look into a map and a string for each write', () => {
    const lines = compare(costs['http+work']!, costs['http']!)
    assert.match(lines.join('\n'), /^steps: .*\(\+[\d.]+ %\)$/m)
    assert.match(lines.join('\n'), /^ {2}test\/cost\/extra\.ts .* in place of 0, 0$/m)
  })

  it('is more with a second write for each', { skip: costsWrites() }, () => {
    const lines = compare(costs['tcp+write']!, costs['tcp']!)
    assert.match(lines.join('\n'), /^writes: .*\(\+[\d.]+ %\)$/m)
  })
})

function costsWrites(): string | false {
  return existsSync('/proc/self/io') ? false : 'only Linux counts the system calls of a process'
}
