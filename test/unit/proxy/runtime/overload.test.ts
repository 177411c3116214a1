import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, it } from 'node:test'
import {
  isMemoryShort,
  isStrained,
  memoryLimit,
  type OverloadCause,
  type OverloadOptions,
  OverloadWatch,
  overloadCause,
  overloadDetail,
} from '../../../../proxy/runtime/overload.ts'

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

/** A cgroup of files, and a watch over it. */
function cgroup(max: string, collect: () => void = () => {}, options: Partial<OverloadOptions> = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'cgroup-'))
  const set = (current: number, inactive = 0, others = ''): void => {
    writeFileSync(join(dir, 'memory.current'), `${current}\n`)
    writeFileSync(join(dir, 'memory.stat'), `anon 1\ninactive_file ${inactive}\nslab 3\n${others}`)
  }
  writeFileSync(join(dir, 'memory.max'), `${max}\n`)
  const changes: (OverloadCause | null)[] = []
  const watch = new OverloadWatch({ cgroupDir: dir, collect, onChange: (cause) => changes.push(cause), ...options })
  ends.push(() => {
    watch.stop()
    rmSync(dir, { recursive: true })
  })
  return { dir, watch, set, changes }
}

/** The same of version 1, which has folders for what it counts. */
function cgroupOfVersion1(limit: string) {
  const dir = mkdtempSync(join(tmpdir(), 'cgroup-'))
  mkdirSync(join(dir, 'memory'))
  const set = (usage: number, inactive: number): void => {
    writeFileSync(join(dir, 'memory/memory.usage_in_bytes'), `${usage}\n`)
    const stat = `rss 1\ninactive_file ${inactive}\nactive_file 0\ntotal_inactive_file ${inactive}\n`
    writeFileSync(join(dir, 'memory/memory.stat'), stat)
  }
  writeFileSync(join(dir, 'memory/memory.limit_in_bytes'), `${limit}\n`)
  set(0, 0)
  const watch = new OverloadWatch({ cgroupDir: dir, collect: () => {} })
  ends.push(() => {
    watch.stop()
    rmSync(dir, { recursive: true })
  })
  return { dir, watch, set }
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

  it('does not count the pages of the program itself, nor caches of names', () => {
    const { watch, set } = cgroup('1000')
    set(990, 50, 'active_file 60\nslab_reclaimable 50\nslab_unreclaimable 7\n')
    watch.look(0)
    assert.equal(overloadCause(), null)
    set(990, 50, 'active_file 60\nslab_reclaimable 20\nslab_unreclaimable 70\n')
    watch.look(0)
    assert.equal(overloadDetail(), '86 % of the memory limit of 1000 bytes are used')
  })

  it('is judged by version 1 of cgroups as by version 2', () => {
    const { dir, watch, set } = cgroupOfVersion1('1000')
    assert.equal(memoryLimit(dir), 1000)
    set(900, 51)
    watch.look(0)
    assert.equal(overloadCause(), null)
    set(900, 50)
    watch.look(0)
    assert.equal(overloadCause(), 'memory')
    assert.equal(memoryLimit(cgroupOfVersion1('9223372036854771712').dir), null)
  })

  it('begins below memory.high, where the kernel makes a process wait', () => {
    const { dir, watch, set } = cgroup('1000')
    writeFileSync(join(dir, 'memory.high'), 'max\n')
    assert.equal(memoryLimit(dir), 1000)
    writeFileSync(join(dir, 'memory.high'), '800\n')
    set(680)
    watch.look(0)
    assert.equal(overloadDetail(), '85 % of the memory limit of 800 bytes are used')
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

  it('is over when a collection has freed what requests held that are gone', async () => {
    let isGarbage = false
    const { watch, set } = cgroup('1000', () => {
      if (isGarbage) set(300)
    })
    set(900)
    watch.look(0)
    assert.equal(overloadCause(), 'memory')
    isGarbage = true
    // Less than what begins it, and more than what ends it.
    set(820)
    while (overloadCause() !== null) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      watch.look(0)
    }
  })

  const MIB = 1024 * 1024

  it('begins when requests that wait for their answer would need what is left', () => {
    let growing = 100
    const { watch, set } = cgroup(`${64 * MIB}`, () => {}, { growing: () => growing })
    set(34 * MIB)
    watch.look(0)
    assert.equal(overloadCause(), null)
    growing = 2000
    watch.look(0)
    assert.equal(isMemoryShort(), true)
    const text =
      /^53 % of the memory limit of \d+ bytes are used, and 2000 requests that wait for their answer may need/
    assert.match(overloadDetail(), text)
    growing = 100
    watch.look(0)
    assert.equal(isMemoryShort(), false)
  })

  it('begins in the middle of a burst, before the next look', () => {
    let growing = 0
    const { watch, set, changes } = cgroup(`${64 * MIB}`, () => {}, { growing: () => growing })
    set(24 * MIB)
    watch.look(0)
    while (overloadCause() === null && growing < 5000) growing++
    assert.ok(growing > 400 && growing < 2000, `${growing} were admitted`)
    assert.deepEqual(changes, ['memory'])
  })

  it('is not brought about by any number of requests that come and go', () => {
    const { watch, set } = cgroup(`${64 * MIB}`, () => {}, { growing: () => 64 })
    set(54 * MIB)
    watch.look(0)
    for (let n = 0; n < 5000; n++) assert.equal(overloadCause(), null)
  })

  it('ends requests from 92 % on, as many as hold what is too much', () => {
    const wanted: number[] = []
    const { watch, set } = cgroup(`${64 * MIB}`, () => {}, { endSome: (count) => wanted.push(count) })
    set(58 * MIB)
    watch.look(0)
    assert.deepEqual([overloadCause(), wanted], ['memory', []])
    set(60 * MIB)
    watch.look(0)
    assert.deepEqual(wanted, [Math.ceil((60 - 0.85 * 64) * 32)])
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
