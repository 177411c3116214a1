/** How a process is told from another that got its id. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { startTimeOf } from '../../../build/machine/process.ts'
import { bootId, isAlive } from '../../cluster/daemons.ts'

describe('isAlive', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  const self = () => ({ name: 'self', pid: process.pid, startTime: startTimeOf(process.pid)!, bootId: bootId() })

  it('knows this process', () => assert.equal(isAlive(self()), true))

  it('does not take another start time, or another boot, for the same process', () => {
    assert.equal(isAlive({ ...self(), startTime: '1' }), false)
    assert.equal(isAlive({ ...self(), bootId: 'before' }), false)
  })

  it('reads the start time of a program whose name looks like fields', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ambassador-name-'))
    const program = join(directory, 'a) Z 1 (b')
    copyFileSync('/bin/sleep', program)
    const child = spawn(program, ['60'])
    try {
      await new Promise((resolve) => child.once('spawn', resolve))
      assert.match(startTimeOf(child.pid!) ?? '', /^\d{3,}$/)
    } finally {
      child.kill('SIGKILL')
      await new Promise((resolve) => child.once('exit', resolve))
      rmSync(directory, { recursive: true })
    }
    assert.equal(startTimeOf(child.pid!), undefined)
  })
})
