import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { describe, it } from 'node:test'
import { type FileLimits, runTestFile } from '../../../runner/test-file.ts'

const fixture = (name: string): string => `test/runner/fixtures/${name}.ts`

const LIMITS: FileLimits = { testTimeoutMs: 5_000, fileTimeoutMs: 20_000, exitTimeoutMs: 5_000 }

const outcomes = async (name: string, limits: Partial<FileLimits> = {}) => {
  const report = await runTestFile(fixture(name), { ...LIMITS, ...limits })
  return { ...report, results: report.results.map(({ outcome, title, detail }) => [outcome, title, detail] as const) }
}

describe('runTestFile', () => {
  it('reports each test once, under its file and suite, with its reason and the output', async () => {
    const { results, output } = await outcomes('mixed')
    assert.deepEqual(
      results.map(([outcome, title]) => [outcome, title]),
      [
        ['passed', `${fixture('mixed')}: a suite > passes`],
        ['failed', `${fixture('mixed')}: a suite > fails`],
        ['skipped', `${fixture('mixed')}: a suite > is skipped`],
      ],
    )
    assert.match(results[1]![2], /1 !== 2/)
    assert.doesNotMatch(results[1]![2], /node:internal/)
    assert.equal(results[2]![2], 'for a reason')
    assert.equal(output, 'written before the failure\n')
  })

  it('ends a file that lives on after its tests, with its children, and names it', async () => {
    const { results, output } = await outcomes('hangs', { exitTimeoutMs: 300 })
    assert.deepEqual(results, [
      ['passed', `${fixture('hangs')}: passes and leaves a child`, ''],
      [
        'failed',
        fixture('hangs'),
        'was ended 0.3 s after its last test: a socket, a timer or a process keeps it alive',
      ],
    ])
    const pid = /child (\d+)/.exec(output)?.[1]
    assert.ok(pid !== undefined)
    assert.equal(existsSync(`/proc/${pid}/cwd/package.json`), false)
  })

  it('fails a test that takes longer than its limit, and the file only once', async () => {
    const { results } = await outcomes('slow', { testTimeoutMs: 200, exitTimeoutMs: 200 })
    assert.deepEqual(results, [['failed', `${fixture('slow')}: never ends`, 'test timed out after 200ms']])
  })

  it('ends a file that takes longer than its limit', async () => {
    const { results } = await outcomes('slow', { testTimeoutMs: 60_000, fileTimeoutMs: 600 })
    assert.deepEqual(results, [['failed', fixture('slow'), 'took longer than 0.6 s and was ended']])
  })

  it('fails a file whose process ends in the middle, even with exit code 0', async () => {
    const { results } = await outcomes('exits')
    assert.deepEqual(results, [['failed', fixture('exits'), 'ended with exit code 0 before its tests were done']])
  })

  it('fails a file that has no test', async () => {
    const { results } = await outcomes('empty')
    assert.deepEqual(results, [['failed', `${fixture('empty')}: ${fixture('empty')}`, 'has no test']])
  })

  it('fails a file that is not there', async () => {
    const { results } = await outcomes('nowhere')
    assert.equal(results.length, 1)
    assert.equal(results[0]![0], 'failed')
  })

  it('marks the tests that a failing hook takes with it as its echo', async () => {
    const { results } = await runTestFile(fixture('hook'), LIMITS)
    const failed = results.map(({ outcome, title, isEcho }) => [outcome, title, isEcho])
    assert.deepEqual(failed, [
      ['failed', `${fixture('hook')}: a suite > never starts`, true],
      ['failed', `${fixture('hook')}: a suite`, false],
    ])
  })
})
