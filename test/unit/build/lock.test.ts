/** One owner at a time, and no lock that outlives its owner. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { withLock } from '../../../build/machine/lock.ts'

const MODULE = join(import.meta.dirname, '../../../build/machine/lock.ts')

describe('withLock', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  let directory: string
  let file: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ambassador-lock-'))
    file = join(directory, 'locks', 'one')
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  /** A process that takes the lock, says so, and holds it until it is killed. */
  const holder = async () => {
    const code = `import { withLock } from ${JSON.stringify(MODULE)}
      await withLock(${JSON.stringify(file)}, () => new Promise(() => { process.stdout.write('mine'); setInterval(() => {}, 1e6) }))`
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    return {
      pid: child.pid!,
      kill: () => new Promise((resolve) => child.once('exit', resolve) && child.kill('SIGKILL')),
    }
  }

  it('returns what the work returns and leaves no file', async () => {
    assert.equal(await withLock(file, async () => existsSync(file)), true)
    assert.deepEqual(readdirSync(join(directory, 'locks')), [])
  })

  it('is free again after a failure', async () => {
    await assert.rejects(
      withLock(file, () => Promise.reject(new Error('no'))),
      /no/,
    )
    assert.equal(await withLock(file, async () => 'yes'), 'yes')
  })

  it('waits for a living owner, says which once, and goes on when it is killed', async () => {
    const owner = await holder()
    const told: number[] = []
    let onTold = (): void => {}
    const wasTold = new Promise<void>((resolve) => {
      onTold = resolve
    })
    let isMine = false
    const mine = withLock(
      file,
      async () => {
        isMine = true
      },
      (pid) => {
        told.push(pid)
        onTold()
      },
    )
    await wasTold
    assert.equal(isMine, false)
    await owner.kill()
    await mine
    assert.equal(isMine, true)
    assert.deepEqual(told, [owner.pid])
  })

  it('takes over from an owner whose process id another process has now', async () => {
    await withLock(file, async () => {})
    writeFileSync(file, `${process.pid} 12345`)
    assert.equal(await withLock(file, async () => 'mine'), 'mine')
  })

  it('lets one work at a time', async () => {
    let working = 0
    let most = 0
    const work = () =>
      withLock(file, async () => {
        most = Math.max(most, ++working)
        await new Promise((resolve) => setImmediate(resolve))
        working--
      })
    await Promise.all([work(), work(), work()])
    assert.equal(most, 1)
  })
})
