import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CannotRun } from '../../../runner/prepare.ts'
import { sum } from '../../../runner/print.ts'
import { prepareStage, runStage, testFiles } from '../../../runner/run-stage.ts'
import { chosen, STAGES, type Stage, together } from '../../../runner/stages.ts'

const stage = (overrides: Partial<Stage>): Stage => ({
  name: 'sample',
  checks: [],
  folders: ['test/runner/fixtures/empty.ts'],
  limits: { testTimeoutMs: 5_000, fileTimeoutMs: 20_000, exitTimeoutMs: 5_000 },
  concurrency: 2,
  isSlow: false,
  ...overrides,
})
const listener = { ended: () => {} }

describe('runStage', () => {
  it('skips loudly what cannot run here, with the remedy', async () => {
    const prepare = async () => {
      throw new CannotRun('go: not found, install Go 1.21 or newer')
    }
    const { results } = await runStage(stage({ prepare }), { isCi: false, listener })
    assert.deepEqual(results, [
      {
        outcome: 'skipped',
        title: 'stage sample',
        detail: 'cannot run here: go: not found, install Go 1.21 or newer',
        isEcho: false,
      },
    ])
  })

  it('fails what cannot run where nobody reads of a skip', async () => {
    const prepare = async () => {
      throw new CannotRun('go: not found')
    }
    const { results } = await runStage(stage({ prepare }), { isCi: true, listener })
    assert.equal(sum(results), '0 passed, 1 failed, 0 skipped')
  })

  it('fails a stage whose preparation breaks, for a person too', async () => {
    const prepare = async () => {
      throw new Error('image does not build')
    }
    const { results } = await runStage(stage({ prepare }), { isCi: false, listener })
    assert.equal(sum(results), '0 passed, 1 failed, 0 skipped')
    assert.match(results[0]!.detail, /image does not build/)
  })

  it('runs the chosen files only, and cleans up after them', async () => {
    const order: string[] = []
    const prepare = async () => {
      order.push('prepared')
      return async () => void order.push('cleaned')
    }
    const { results } = await runStage(stage({ prepare, checks: [{ name: 'never', command: 'false', args: [] }] }), {
      paths: ['test/runner/fixtures/mixed.ts'],
      isCi: true,
      listener: { ended: ({ file }) => order.push(file) },
    })
    assert.equal(sum(results), '1 passed, 1 failed, 1 skipped')
    assert.deepEqual(order, ['prepared', 'test/runner/fixtures/mixed.ts', 'cleaned'])
  })

  it('takes what was prepared before, once', async () => {
    let times = 0
    const prepare = async () => {
      times++
      return async () => {}
    }
    const options = { paths: ['test/runner/fixtures/mixed.ts'], isCi: true }
    const prepared = prepareStage(stage({ prepare }), options)
    await runStage(stage({ prepare }), { ...options, listener, prepared })
    assert.equal(times, 1)
  })

  it('prepares nothing where no file is to run', async () => {
    const prepare = async () => assert.fail('prepared')
    assert.equal(typeof (await prepareStage(stage({ prepare }), { paths: [], isCi: true })), 'function')
  })

  it('runs the files that go in turn in their order, beside the others, and those that are last after all of them', async () => {
    const order: string[] = []
    const [one, two, other, last] = ['exits', 'mixed', 'empty', 'hook'].map((name) => `test/runner/fixtures/${name}.ts`)
    await runStage(stage({ inTurn: [one!, two!], last: [last!] }), {
      paths: [last!, other!, two!, one!],
      isCi: true,
      listener: { ended: ({ file }) => order.push(file) },
    })
    assert.deepEqual(
      order.filter((file) => file !== other),
      [one, two, last],
    )
    assert.equal(order.length, 4)
    assert.equal(order.at(-1), last)
  })

  it('counts a check by the exit code of its command', async () => {
    const checks = ['true', 'false', 'no-such-program'].map((command) => ({ name: command, command, args: [] }))
    const { results } = await runStage(stage({ folders: [], checks }), { isCi: true, listener })
    assert.deepEqual(
      results.map(({ outcome, detail }) => `${outcome} ${detail}`.trimEnd()),
      [
        'passed',
        "failed 'false' failed with exit code 1",
        "failed 'no-such-program' cannot be started: spawn no-such-program ENOENT",
      ],
    )
  })
})

describe('chosen', () => {
  const names = (args: string[]) => chosen(args).map(({ stage: { name }, paths }) => [name, paths])

  it('takes all stages, fast first, when nothing is named', () => {
    assert.deepEqual(
      chosen([]).map(({ stage: { name } }) => name),
      ['lint', 'generated', 'unit', 'golden', 'chart', 'proxy', 'operator', 'e2e'],
    )
  })

  it('takes stages by name, however they are given', () => {
    assert.deepEqual(names(['unit', '--stage', 'lint', '--stage=proxy']), [
      ['lint', undefined],
      ['unit', undefined],
      ['proxy', undefined],
    ])
  })

  it('takes a group by its name', () => {
    assert.deepEqual(names(['cluster']), [
      ['operator', undefined],
      ['e2e', undefined],
    ])
  })

  it('takes a file or a folder with the stage that prepares for it', () => {
    assert.deepEqual(names(['./test/e2e/live.test.ts', 'test/unit/proxy']), [
      ['unit', ['test/unit/proxy']],
      ['e2e', ['test/e2e/live.test.ts']],
    ])
  })

  it('refuses a name that is no stage', () => {
    assert.throws(() => chosen(['unti']), {
      message:
        "stage 'unti': is not known, use quick, lint, generated, unit, golden, chart, proxy, cluster, operator, e2e, or the path of a test file",
    })
  })

  it('leaves no test file of the repository out, and runs none twice', () => {
    const inStages = STAGES.flatMap(({ folders }) => testFiles(folders)).sort()
    assert.deepEqual(inStages, testFiles(['test']).sort())
  })
})

describe('together', () => {
  const groups = (isGiven: boolean) =>
    together(chosen(['golden', 'chart', 'proxy', 'cluster']), isGiven).map((batch) =>
      batch.map(({ stage: { name } }) => name),
    )

  it('runs the stages of a group at the same time, those of the cluster each on one of its own', () => {
    assert.deepEqual(groups(false), [['golden', 'chart'], ['proxy'], ['operator', 'e2e']])
  })

  it('runs those of the cluster one after the other on one that is given', () => {
    assert.deepEqual(groups(true), [['golden', 'chart'], ['proxy'], ['operator'], ['e2e']])
  })
})
