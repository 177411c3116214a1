import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { readCatalogue } from '../../../../../proxy/protocol/postgres/catalogue.ts'
import { DOUBT, Lexicon } from '../../../../../proxy/protocol/postgres/lexicon.ts'
import type { Effects } from '../../../../../proxy/protocol/postgres/pins.ts'
import { hashOf } from '../../../../../proxy/protocol/postgres/sql-words.ts'

const LEAK: Effects = { pin: 'set', parameters: 0, asksSequences: false, isDoubtful: false }
const [leak, other] = [hashOf('leak'), hashOf('other')]

describe('Lexicon', () => {
  it('knows nothing before the server was asked for everything, and then the words that were asked about', () => {
    const lexicon = new Lexicon()
    assert.equal(lexicon.effectsOf(leak), undefined)
    const question = lexicon.ask(0)
    assert.equal(question.isAll, true)
    lexicon.learn(question, 'one', new Map([[leak, LEAK]]), [other])
    assert.equal(lexicon.effectsOf(leak), LEAK)
    assert.equal(lexicon.effectsOf(other), null)
    assert.equal(lexicon.effectsOf(hashOf('third')), undefined)
    assert.equal(lexicon.effectsOf(hashOf('query_to_xml')), DOUBT)
  })

  it('keeps its version while nothing changes, and doubts everything when the fingerprint is another one', () => {
    const lexicon = new Lexicon()
    lexicon.learn(lexicon.ask(0), 'one', new Map(), [other])
    const { version } = lexicon
    lexicon.learn(lexicon.ask(0), 'one', null, [])
    assert.equal(lexicon.version, version)
    lexicon.learn(lexicon.ask(0), 'two', null, [])
    assert.notEqual(lexicon.version, version)
    assert.equal(lexicon.effectsOf(other), undefined)
    const all = lexicon.ask(0)
    assert.equal(all.isAll, true)
    lexicon.learn(all, 'two', new Map([[other, LEAK]]), [])
    assert.equal(lexicon.effectsOf(other), LEAK)
  })

  it('takes no answer to a question that is older than a change', () => {
    const lexicon = new Lexicon()
    lexicon.learn(lexicon.ask(0), 'one', new Map(), [other])
    const early = lexicon.ask(0)
    lexicon.doubt()
    lexicon.learn(early, 'one', null, [])
    assert.equal(lexicon.effectsOf(other), undefined)
    lexicon.learn(lexicon.ask(0), 'one', null, [])
    assert.equal(lexicon.effectsOf(other), null)
  })

  it('has few questions at once, and five more each second', () => {
    const lexicon = new Lexicon()
    const asked = (at: number) => {
      let count = 0
      while (count < 100 && lexicon.mayAsk(at)) count++
      return count
    }
    assert.deepEqual([asked(10_000), asked(10_000), asked(11_000), asked(60_000)], [20, 0, 5, 20])
    lexicon.ask(60_000)
    assert.deepEqual([lexicon.isDue(64_999), lexicon.isDue(65_000)], [false, true])
  })

  it('looks nothing up where the server cannot be asked', () => {
    const lexicon = new Lexicon()
    lexicon.giveUp()
    assert.equal(lexicon.effectsOf(leak), null)
    assert.equal(lexicon.isDue(1e9), false)
  })
})

describe('the catalogue', () => {
  const read = (rows: readonly (readonly (string | null)[])[]) => {
    const effects = readCatalogue(rows)
    return (name: string) => {
      const found = effects.get(hashOf(name))
      return found === undefined ? null : (found.pin ?? (found.isDoubtful ? 'doubt' : 'other'))
    }
  }

  it('finds what bodies do, directly and by what they call', () => {
    const of = read([
      ['routine', 'leak', 'plpgsql ', "begin perform set_config('a.b', 'c', false); end"],
      ['routine', 'local', 'plpgsql ', "begin perform set_config('a.b', 'c', true); end"],
      ['routine', 'caller', 'sql ', 'select local(), LEAK()'],
      ['routine', 'dynamic', 'plpgsql ', 'begin execute x; end'],
      ['routine', 'locks', 'sql ', 'select pg_advisory_lock(1); select pg_advisory_unlock(1)'],
      ['routine', 'keeps', 'sql ', 'select pg_advisory_lock(1)'],
      ['routine', 'numbers', 'sql ', 'select lastval()'],
      ['routine', 'python', 'plpython3u ', 'return 1'],
      ['routine', 'uuid', 'c uuid-ossp', 'uuid'],
      ['routine', 'unknown', 'c something', 'unknown'],
      ['routine', 'round', 'sql ', 'select square()'],
      ['routine', 'square', 'sql ', 'select round(), dynamic()'],
      ['routine', 'both', 'plpgsql ', 'begin listen x; perform python(); end'],
    ])
    const names = [
      'leak',
      'local',
      'caller',
      'dynamic',
      'locks',
      'keeps',
      'numbers',
      'python',
      'uuid',
      'unknown',
      'round',
      'both',
    ]
    assert.deepEqual(names.map(of), [
      'set',
      null,
      'set',
      'doubt',
      'doubt',
      'advisory_lock',
      'other',
      'language',
      null,
      'doubt',
      'doubt',
      'language',
    ])
  })

  it('follows triggers, views and keys to what they call', () => {
    const of = read([
      ['routine', 'leak', 'plpgsql ', 'begin listen x; end'],
      ['calls', 'child', 'leak', null],
      ['calls', 'parent', 'child', null],
      ['calls', 'view', 'set_config', null],
      ['calls', '', 'leak', null],
    ])
    assert.deepEqual(['child', 'parent', 'view', '', 'nobody'].map(of), ['listen', 'listen', 'doubt', 'listen', null])
  })

  it('does not read a body that is too long', () => {
    assert.equal(read([['routine', 'long', 'sql ', ' '.repeat(70_000)]])('long'), 'doubt')
  })
})
