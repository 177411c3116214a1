import assert from 'node:assert/strict'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { FileWatcher } from '../../../../proxy/config/watch.ts'
import { Volumes, writeVolume } from '../../../helpers/volume.ts'

const volumes = new Volumes()
after(() => volumes.remove())

/** Calls of a watcher as a queue: next() resolves at the next one. The poll is too slow to help, so only the kernel can. */
function watching(paths: readonly string[], pollMs = 600_000, debounceMs = 10) {
  let calls = 0
  let wake = () => {}
  const watcher = new FileWatcher(
    () => {
      calls++
      wake()
    },
    { debounceMs, pollMs, pollWithoutWatchMs: pollMs },
  )
  watcher.setPaths(paths)
  let seen = 0
  return {
    watcher,
    get calls() {
      return calls
    },
    async next(): Promise<void> {
      while (calls === seen) await new Promise<void>((resolve) => (wake = resolve))
      seen = calls
    },
  }
}

describe('FileWatcher', () => {
  it('sees each swap of ..data', { timeout: 5000 }, async () => {
    const path = join(volumes.configDir, 'swap')
    writeVolume(path, { 'config.json': '1' })
    const it = watching([path])
    for (let i = 0; i < 5; i++) {
      writeVolume(path, { 'config.json': `${i}` })
      await it.next()
    }
    assert.equal(it.calls, 5)
    it.watcher.close()
  })

  it('reports swaps that follow each other at once as one change', { timeout: 5000 }, async () => {
    const path = join(volumes.configDir, 'burst')
    writeVolume(path, { 'config.json': '1' })
    const it = watching([path])
    for (let i = 0; i < 20; i++) writeVolume(path, { 'config.json': `${i}` })
    await it.next()
    assert.equal(it.calls, 1)
    it.watcher.close()
  })

  it('sees a plain file that is written, replaced by renaming, and removed', { timeout: 5000 }, async () => {
    const path = join(volumes.root, 'plain.json')
    writeFileSync(path, 'one')
    const it = watching([path])
    writeFileSync(path, 'three')
    await it.next()
    writeFileSync(`${path}.new`, 'other')
    renameSync(`${path}.new`, path)
    await it.next()
    rmSync(path)
    await it.next()
    it.watcher.close()
  })

  it('sees a directory that appears later, and what changes in it then', { timeout: 5000 }, async () => {
    const path = join(volumes.root, 'later', 'deep')
    const it = watching([path])
    mkdirSync(path, { recursive: true })
    await it.next()
    writeVolume(path, { token: 'x' })
    await it.next()
    it.watcher.close()
  })

  it('sees a directory that is replaced by another of the same name', { timeout: 5000 }, async () => {
    const path = join(volumes.root, 'replaced')
    writeVolume(path, { token: 'x' })
    const it = watching([path])
    renameSync(path, `${path}.old`)
    writeVolume(path, { token: 'y' })
    await it.next()
    writeVolume(path, { token: 'z' })
    await it.next()
    it.watcher.close()
  })

  it('does not call for neighbours of what it watches', { timeout: 5000 }, async () => {
    const directory = join(volumes.root, 'neighbours')
    mkdirSync(directory)
    writeFileSync(join(directory, 'mine'), 'x')
    const it = watching([join(directory, 'mine')])
    // Told later than the first one would be, of what happens in the same directory.
    const slower = watching([join(directory, 'other')], 600_000, 60)
    writeFileSync(join(directory, 'other'), 'x')
    await slower.next()
    assert.equal(it.calls, 0)
    it.watcher.close()
    slower.watcher.close()
  })

  it('sees a change beside a neighbour that is written all the time', { timeout: 20_000 }, async () => {
    const directory = join(volumes.root, 'busy')
    mkdirSync(directory)
    const file = join(directory, 'list')
    writeFileSync(file, 'one')
    const it = watching([file], 600_000, 50)
    let isFirst = true
    const storm = setInterval(() => {
      writeFileSync(join(directory, 'log'), String(performance.now()))
      // Not before the storm has begun.
      if (isFirst) writeFileSync(file, 'another')
      isFirst = false
    }, 1)
    await it.next()
    clearInterval(storm)
    it.watcher.close()
  })

  it('finds by polling what the kernel does not report', { timeout: 5000 }, async () => {
    // A link to a file elsewhere: nothing happens in the directory of the link.
    const target = join(volumes.root, 'elsewhere', 'target')
    mkdirSync(join(volumes.root, 'elsewhere'))
    mkdirSync(join(volumes.root, 'here'))
    writeFileSync(target, 'one')
    symlinkSync(target, join(volumes.root, 'here', 'link'))
    const it = watching([join(volumes.root, 'here', 'link')], 20)
    writeFileSync(target, 'three')
    await it.next()
    it.watcher.close()
  })

  it('forgets paths that are no longer named', { timeout: 5000 }, async () => {
    const path = join(volumes.root, 'forget')
    writeVolume(path, { x: '1' })
    const it = watching([path])
    it.watcher.setPaths([])
    const slower = watching([path], 600_000, 60)
    writeVolume(path, { x: '2' })
    await slower.next()
    assert.equal(it.calls, 0)
    it.watcher.close()
    slower.watcher.close()
  })

  it('calls no more once it is closed', { timeout: 5000 }, async () => {
    const path = join(volumes.root, 'closed')
    writeVolume(path, { x: '1' })
    const it = watching([path])
    const slower = watching([path], 600_000, 60)
    writeVolume(path, { x: '2' })
    it.watcher.close()
    await slower.next()
    assert.equal(it.calls, 0)
    slower.watcher.close()
  })
})
