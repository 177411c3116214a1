import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { DatabaseTokenCache } from '../../../../proxy/auth/database-tokens.ts'
import type { Token } from '../../../../proxy/auth/token-credential.ts'

/** A cache over answers in order, with a clock that the test moves. */
function setup(t: TestContext, answers: (Token | Error)[], isPerServer = false, isLocal = false) {
  let time = 1000
  t.mock.method(performance, 'now', () => time)
  const asked: string[] = []
  const told: string[] = []
  const source = {
    isPerServer,
    isLocal,
    async fetch(host: string, port: number): Promise<Token> {
      asked.push(`${host}:${port}`)
      const answer = answers.shift() ?? new Error('nothing more')
      if (answer instanceof Error) throw answer
      return answer
    },
  }
  const cache = new DatabaseTokenCache(source, (message) => told.push(message))
  return {
    asked,
    told,
    cache,
    later: (ms: number) => {
      time += ms
    },
    get: (host = 'db') => cache.tokenFor(host, 5432),
  }
}

describe('tokens for databases', () => {
  it('are fetched once for connections that come together, and used until a fifth of their life is left', async (t) => {
    const { asked, get, later } = setup(t, [
      { value: 'one', lifeMs: 1000 },
      { value: 'two', lifeMs: 1000 },
    ])
    assert.deepEqual(await Promise.all([get(), get('other')]), ['one', 'one'])
    later(799)
    assert.equal(await get(), 'one')
    later(1)
    assert.equal(await get(), 'two')
    assert.equal(asked.length, 2)
  })

  it('are of each server where its name is signed', async (t) => {
    const { asked, get } = setup(
      t,
      [
        { value: 'one', lifeMs: 1000 },
        { value: 'two', lifeMs: 1000 },
      ],
      true,
    )
    assert.deepEqual([await get('a'), await get('b'), await get('a')], ['one', 'two', 'one'])
    assert.deepEqual(asked, ['a:5432', 'b:5432'])
  })

  it('are made anew for each login where that asks nobody, and the last one is used while it cannot be done', async (t) => {
    const answers = ['one', 'two', new Error('keys: no')].map((each) => {
      return each instanceof Error ? each : { value: each, lifeMs: 1000 }
    })
    const { asked, get, told } = setup(t, answers, true, true)
    assert.deepEqual(await Promise.all([get(), get()]), ['one', 'one'])
    assert.deepEqual([await get(), await get()], ['two', 'two'])
    assert.deepEqual([asked.length, told], [3, ['keys: no']])
  })

  it('go on until they end while another cannot be had, and whoever fails is asked again ever later', async (t) => {
    const { asked, get, later, told } = setup(t, [
      { value: 'one', lifeMs: 1000 },
      new Error('issuer: no'),
      new Error('issuer: still no'),
      { value: 'two', lifeMs: 1000 },
    ])
    await get()
    later(850)
    assert.equal(await get(), 'one')
    assert.equal(await get(), 'one')
    assert.deepEqual([asked.length, told], [2, ['issuer: no']])
    later(150)
    await assert.rejects(get(), { message: 'issuer: no' })
    assert.equal(asked.length, 2)
    later(350)
    await assert.rejects(get(), { message: 'issuer: still no' })
    later(999)
    await assert.rejects(get(), { message: 'issuer: still no' })
    assert.equal(asked.length, 3)
    later(1)
    assert.equal(await get(), 'two')
  })

  it('that are empty, over or have a NUL are not used', async (t) => {
    for (const bad of [
      { value: '', lifeMs: 1000 },
      { value: 'a', lifeMs: 0 },
      { value: 'a\0b', lifeMs: null },
    ]) {
      const { get } = setup(t, [bad])
      await assert.rejects(get(), { message: 'the token that was fetched cannot be used' })
      t.mock.restoreAll()
    }
  })
})
