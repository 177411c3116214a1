import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Ballot, tally } from '../../../../../proxy/upstream/redis/sentinel-tally.ts'

const A = { host: '10.0.0.1', port: 6379 }
const B = { host: '10.0.0.2', port: 6379 }
const ballot = (voter: string, master: Ballot['master']): Ballot => ({ voter, name: `${voter}:26379`, master })
const count = (ballots: readonly Ballot[], absent = 0) => tally(ballots, absent, 'mymaster')

describe('the votes of Sentinels', () => {
  it('need more than half to agree', () => {
    const { master, needed, agreeing, problem } = count([ballot('a', A), ballot('b', A), ballot('c', B)])
    assert.deepEqual(master, A)
    assert.equal(needed, 2)
    assert.deepEqual([...agreeing], ['a:26379', 'b:26379'])
    assert.equal(problem, null)
  })

  it('count one that does not answer, and one that has no address', () => {
    assert.deepEqual(count([ballot('a', A), ballot('b', A), ballot('c', undefined)]).master, A)
    assert.equal(count([ballot('a', A), ballot('b', undefined), ballot('c', undefined)]).master, null)
    assert.equal(count([ballot('a', A)], 1).master, null)
    assert.deepEqual(count([ballot('a', A), ballot('b', A)], 1).master, A)
  })

  it('count a Sentinel with two addresses once, as the one of them that answers', () => {
    const twice = count([ballot('a', A), ballot('a', A), ballot('b', B)])
    assert.equal(twice.voters, 2)
    assert.equal(twice.master, null)
    assert.deepEqual(count([ballot('a', undefined), ballot('a', A)]).master, A)
  })

  it('take a name in upper case for the same', () => {
    const upper = { host: 'REDIS-0.example', port: 6379 }
    const lower = { host: 'redis-0.example', port: 6379 }
    assert.notEqual(count([ballot('a', upper), ballot('b', lower)]).master, null)
  })

  const problems: [title: string, ballots: Ballot[], absent: number, problem: RegExp][] = [
    [
      'they disagree',
      [ballot('a', A), ballot('b', B)],
      0,
      /^the Sentinels disagree on the master 'mymaster', 10\.0\.0\.1:6379 \(1 of 2: a:26379\) and 10\.0\.0\.2:6379 \(1 of 2: b:26379\): 2 must agree$/,
    ],
    [
      'too few answer',
      [ballot('a', A), ballot('b', undefined), ballot('c', undefined)],
      0,
      /^of 3 Sentinels only 1 names the master 'mymaster', 10\.0\.0\.1:6379 \(1 of 3: a:26379\): 2 must agree$/,
    ],
    ['nobody answers', [ballot('a', undefined)], 2, /^none of 3 Sentinels answers$/],
    [
      'nobody knows the master',
      [ballot('a', null), ballot('b', null), ballot('c', undefined)],
      0,
      /^no Sentinel knows a master 'mymaster'$/,
    ],
  ]
  for (const [title, ballots, absent, problem] of problems) {
    it(`say so when ${title}`, () => {
      const found = count(ballots, absent)
      assert.equal(found.master, null)
      assert.match(found.problem ?? '', problem)
    })
  }
})
