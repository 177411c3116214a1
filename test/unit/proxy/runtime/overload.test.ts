import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, it } from 'node:test'
import {
  isStrained,
  type OverloadCause,
  OverloadWatch,
  overloadCause,
  overloadDetail,
} from '../../../../proxy/runtime/overload.ts'

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

/** A cgroup of files, and a watch over it. */
function cgroup(max: string, collect: () => void = () => {}) {
  const dir = mkdtempSync(join(tmpdir(), 'cgroup-'))
  const set = (current: number, inactive = 0): void => {
    writeFileSync(join(dir, 'memory.current'), `${current}\n`)
    writeFileSync(join(dir, 'memory.stat'), `anon 1\ninactive_file ${inactive}\nslab 3\n`)
  }
  writeFileSync(join(dir, 'memory.max'), `${max}\n`)
  const changes: (OverloadCause | null)[] = []
  const watch = new OverloadWatch({ cgroupDir: dir, collect, onChange: (cause) => changes.push(cause) })
  ends.push(() => {
    watch.stop()
    rmSync(dir, { recursive: true })
  })
  return { watch, set, changes }
}

describe('overload', () => {
  it('begins at 85 % of the memory limit and ends below 80 %', () => {
    const { watch, set, changes } = cgroup('1000')
    for (const [current, cause] of [
      [849, null],
      [850, 'memory'],
      [801, 'memory'],
      [799, null],
      [820, null],
    ] as const) {
      set(current)
      watch.look(0)
      assert.equal(overloadCause(), cause, String(current))
    }
    assert.deepEqual(changes, ['memory', null])
    set(900)
    watch.look(0)
    assert.equal(overloadDetail(), '90 % of the memory limit of 1000 bytes are used')
  })

  it('does not count pages of files that the kernel takes back', () => {
    const { watch, set } = cgroup('1000')
    set(990, 200)
    watch.look(0)
    assert.equal(overloadCause(), null)
  })

  it('is announced: at 70 %, or when the event loop is late, what nobody waits for is left out', () => {
    const { watch, set } = cgroup('1000')
    const strained = (current: number, inactive: number, delayMs: number): boolean => {
      set(current, inactive)
      watch.look(delayMs)
      return isStrained()
    }
    assert.deepEqual(
      [strained(699, 0, 0), strained(700, 0, 0), strained(790, 200, 0), strained(100, 0, 99), strained(100, 0, 100)],
      [false, true, false, false, true],
    )
    assert.equal(overloadCause(), null)
    watch.stop()
    assert.equal(isStrained(), false)
  })

  it('is not what a collection can free', () => {
    let collections = 0
    const { watch, set } = cgroup('1000', () => {
      collections++
      set(300)
    })
    set(900)
    watch.look(0)
    assert.equal(overloadCause(), null)
    set(900)
    watch.look(0)
    assert.deepEqual([overloadCause(), collections], ['memory', 1])
  })

  it('is an event loop that is a second late twice in a row', () => {
    const { watch, changes } = cgroup('max')
    watch.look(5000)
    watch.look(10)
    watch.look(1000)
    assert.equal(overloadCause(), null)
    watch.look(1000)
    assert.equal(overloadCause(), 'event_loop')
    assert.equal(overloadDetail(), 'the event loop is 1000 ms late')
    watch.look(999)
    assert.deepEqual(changes, ['event_loop', null])
  })

  it('is none without a limit and without a cgroup', () => {
    const { watch, set } = cgroup('max')
    set(1e12)
    watch.look(0)
    new OverloadWatch({ cgroupDir: '/nowhere' }).look(0)
    assert.equal(overloadCause(), null)
  })
})
