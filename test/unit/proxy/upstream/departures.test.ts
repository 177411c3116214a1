import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Departures } from '../../../../proxy/upstream/departures.ts'
import { Endpoint } from '../../../../proxy/upstream/endpoint.ts'

const ADDRESS = { host: 'db.example', ip: '10.0.0.1', port: 5432, weight: 1, priority: 0 }
const KEY = 'db.example 10.0.0.1:5432'

/** An endpoint with a connection of a pool in use, which nothing but its cut ends. */
function busy() {
  const endpoint = new Endpoint(ADDRESS, { config: null, probeTimeoutMs: 1000 })
  const heard: string[] = []
  endpoint.begin(0)
  endpoint.pool = {
    retire: () => heard.push('retired'),
    destroy: () => heard.push('destroyed'),
    cut: (why) => {
      heard.push(why)
      endpoint.leave()
    },
  }
  return { endpoint, heard }
}

const fresh = () => new Endpoint(ADDRESS, { config: null, probeTimeoutMs: 1000 })
const LEFT = 'its endpoint left discovery 5 ms ago, which is its drainDeadline'

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1))
}

describe('an endpoint that leaves discovery and comes back', () => {
  it('is not cut while it is back, and has what began before cut by the deadline when it leaves again', async () => {
    const departures = new Departures(5)
    const { endpoint: first, heard } = busy()
    departures.leave(KEY, first)
    const second = fresh()
    departures.takeBack(KEY, second)
    const other = busy()
    departures.leave('other', other.endpoint)
    await until(() => other.heard.length === 2)
    assert.deepEqual([heard, other.heard], [['retired'], ['retired', LEFT]])
    departures.leave(KEY, second)
    await until(() => heard.length === 2)
    assert.deepEqual(heard, ['retired', LEFT])
  })

  it('has what began before cut at once when it leaves again and nobody answers there', () => {
    const departures = new Departures(null)
    const { endpoint: first, heard } = busy()
    departures.leave(KEY, first)
    const second = fresh()
    departures.takeBack(KEY, second)
    for (let n = 0; n < 2; n++) second.heard(true)
    departures.leave(KEY, second)
    assert.deepEqual(heard, ['retired', 'nobody answers at its endpoint, which discovery does not name any more'])
  })

  it('leaves no trail of endpoints on which nothing is under way, however often it comes and goes', () => {
    const departures = new Departures(null)
    const { endpoint: first } = busy()
    let last: Endpoint = first
    for (let n = 0; n < 10; n++) {
      departures.leave(KEY, last)
      last = fresh()
      departures.takeBack(KEY, last)
    }
    assert.equal(last.former, first)
    assert.equal(first.former, null)
  })

  it('leaves none either of endpoints that were busy as they left and have ended since', () => {
    const departures = new Departures(null)
    let last = busy().endpoint
    for (let n = 0; n < 10; n++) {
      departures.leave(KEY, last)
      const next = busy().endpoint
      departures.takeBack(KEY, next)
      // What went on at the last one ends only now that the next one is there.
      last.leave()
      last = next
    }
    let count = 0
    for (let each = last.former; each !== null; each = each.former) count++
    assert.equal(count, 1)
  })
})
