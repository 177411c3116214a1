/** What is known of a command that failed. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type CommandError, run, succeeds, which } from '../../../build/machine/exec.ts'

describe('run', () => {
  it('returns the standard output, with the input given', async () => {
    assert.equal(await run('cat', [], { input: 'hello' }), 'hello')
  })

  it('tells the command, its exit code and the end of what it said', async () => {
    await assert.rejects(run('sh', ['-c', 'seq 20 >&2; exit 3']), (error: CommandError) => {
      assert.equal(error.exitCode, 3)
      assert.match(error.message, /^command 'sh -c seq 20 >&2; exit 3' failed with exit code 3:\n {2}13\n/)
      assert.match(error.message, /\n {2}20$/)
      return true
    })
  })

  it('tells that a program does not exist', async () => {
    await assert.rejects(run('no-such-program', []), /^CommandError: command 'no-such-program' cannot be started/)
  })

  it('ends a command that takes too long', async () => {
    await assert.rejects(run('sleep', ['60'], { timeoutMs: 20 }), /was ended by SIGKILL/)
  })
})

describe('succeeds', () => {
  it('tells success from failure', async () => {
    assert.equal(await succeeds('true', []), true)
    assert.equal(await succeeds('false', []), false)
    assert.equal(await succeeds('no-such-program', []), false)
  })
})

describe('which', () => {
  it('finds a program in the folders given, in their order', () => {
    assert.equal(which('sh', '/nowhere:/bin:/usr/bin'), '/bin/sh')
    assert.equal(which('sh', '/nowhere'), undefined)
  })
})
