import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Json, JsonObject } from '../../../../operator/webhook/json.ts'
import { isOffered, offersOf, variablesOf } from '../../../../operator/webhook/offered-env.ts'
import { ambassador } from '../../../helpers/injection.ts'

const db = ambassador('db', { env: variablesOf('PostgreSQL', 5432) })
const spec = (container: JsonObject): JsonObject => ({ containers: [{ name: 'app', ...container }] })
const names = (container: JsonObject): string[] =>
  offersOf(spec(container), [db], 'Native').offers.flatMap(({ variables }) => variables.map(({ name }) => name))

describe('variables that are offered', () => {
  it('are those of the protocol, and none for others', () => {
    assert.deepEqual(names({}), ['PGHOST', 'PGPORT', 'PGSSLMODE'])
    assert.deepEqual(variablesOf('Redis', 6379), [{ name: 'REDIS_URL', value: 'redis://127.0.0.1:6379' }])
    assert.deepEqual(variablesOf('HTTP', 80), [])
  })

  it('are none where a container says itself where its database is, or may do so by envFrom', () => {
    for (const name of ['PGHOST', 'PGHOSTADDR', 'PGPORT', 'PGSERVICE', 'PGSSLMODE']) {
      assert.deepEqual(names({ env: [{ name, value: 'x' }] }), [], name)
    }
    assert.deepEqual(names({ env: [{ name: 'PGUSER', value: 'x' }] }).length, 3)
    assert.deepEqual(names({ envFrom: [{ secretRef: { name: 'settings' } }] }), [])
  })

  it('are known by their values, so that no variable of the user is taken out', () => {
    for (const each of [...variablesOf('PostgreSQL', 1), ...variablesOf('Redis', 65_535)]) {
      assert.equal(isOffered({ ...each }), true)
      assert.equal(isOffered({ ...each, value: 'db.example.com' }), false)
    }
    const others: Json[] = [
      null,
      {},
      { name: 'PGHOST' },
      { name: 'PGHOST', valueFrom: {} },
      { name: 'toString', value: 'x' },
    ]
    for (const own of others) {
      assert.equal(isOffered(own), false)
    }
  })
})
