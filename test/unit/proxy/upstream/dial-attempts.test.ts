import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { DialGuard } from '../../../../proxy/policy/dial-guard.ts'
import { now, refreshClock } from '../../../../proxy/runtime/clock.ts'
import type { UpstreamTls } from '../../../../proxy/tls/upstream-tls.ts'
import { Cluster } from '../../../../proxy/upstream/cluster.ts'
import type { DialFailure } from '../../../../proxy/upstream/connector.ts'
import { DialAttempts } from '../../../../proxy/upstream/dial-attempts.ts'
import { Endpoint } from '../../../../proxy/upstream/endpoint.ts'

const REFUSED: DialFailure = { reason: 'connect_refused', detail: 'it refused' }

function clusterOf(count: number, tls: UpstreamTls | null = null, allow: readonly string[] | null = null): Cluster {
  const addresses = Array.from({ length: count }, (_, i) => ({
    host: 'db.example',
    ip: `10.0.0.${i + 1}`,
    port: 1,
    weight: 1,
    priority: 0,
  }))
  const cluster = new Cluster(
    {
      config: {
        name: 'orders',
        discovery: { kind: 'dns', hostname: 'unused', port: 1 },
        tls: null,
        auth: null,
        circuitBreaker: null,
        limits: { maxConnections: 1, maxPendingRequests: 1, maxConcurrentRetries: 2 },
      },
      tls,
      guard: new DialGuard({ ownPort: 0, allow }),
      budget: null,
      probeTimeoutMs: 1000,
      queue: 'Oldest',
    },
    {
      discover: () => ({ failure: null, start: (onChange) => onChange(addresses), refresh() {}, stop() {} }),
    },
  )
  refreshClock()
  cluster.start()
  return cluster
}

/** Attempts until there is no next one; what each was at. */
function failAll(attempts: DialAttempts): { readonly asked: Endpoint[]; readonly why: DialFailure } {
  const asked: Endpoint[] = []
  let failed: DialFailure | null = null
  for (;;) {
    const next: Endpoint | DialFailure = attempts.next(failed)
    if (!(next instanceof Endpoint)) return { asked, why: next }
    attempts.begin(next)
    attempts.end('failure')
    attempts.blame(REFUSED)
    asked.push(next)
    failed = REFUSED
    if (!attempts.isLeft) return { asked, why: failed }
  }
}

describe('attempts to get a connection', () => {
  it('goes to another endpoint each time, three times at most, and puts no load on any when all have failed', () => {
    const cluster = clusterOf(5)
    const attempts = new DialAttempts(cluster)
    const { asked, why } = failAll(attempts)
    assert.equal(new Set(asked).size, 3)
    assert.equal(why, REFUSED)
    assert.deepEqual(
      [...cluster.endpoints].map(({ active }) => active),
      [0, 0, 0, 0, 0],
    )
    assert.deepEqual([attempts.last, attempts.count, cluster.budget.active], [asked[2], 3, 0])
  })

  it('says the last failure again when no other endpoint is left', () => {
    const { asked, why } = failAll(new DialAttempts(clusterOf(2)))
    assert.equal(asked.length, 2)
    assert.equal(why, REFUSED)
  })

  it('tries every endpoint again in a new round', () => {
    const attempts = new DialAttempts(clusterOf(2))
    failAll(attempts)
    attempts.forget()
    assert.ok(attempts.next(REFUSED) instanceof Endpoint)
    assert.equal(attempts.isFirst, true)
  })

  it('takes no retry of the budget for an endpoint that it does not return', () => {
    const broken = { context: null, failure: 'no key' } as unknown as UpstreamTls
    const cluster = clusterOf(2, broken)
    const why = new DialAttempts(cluster).next(REFUSED)
    assert.deepEqual(why, { reason: 'tls_verify_failed', detail: 'TLS cannot be set up: no key' })
    assert.equal(cluster.budget.active, 0)
  })

  it('moves the load to the address that accepted first and avoids the one that was chosen', () => {
    const cluster = clusterOf(2)
    const attempts = new DialAttempts(cluster)
    const chosen = attempts.next(null) as Endpoint
    attempts.begin(chosen)
    const other = [...cluster.endpoints].find((each) => each !== chosen)!
    assert.equal(attempts.moveTo(other), other)
    assert.deepEqual([chosen.active, other.active, attempts.count], [0, 1, 2])
    assert.equal(chosen.isAvoided(now()), true)
    attempts.succeed()
    assert.deepEqual([other.active, other.failures, attempts.last], [1, 0, other])
  })

  it('says which rule denies the endpoints', () => {
    const why = new DialAttempts(clusterOf(1, null, ['other.example'])).next(null) as DialFailure
    assert.equal(why.reason, 'egress_denied')
    assert.match(why.detail, /db\.example.*egress\.allow/)
  })

  it('tells that nobody answered, which counts towards an endpoint that is gone', () => {
    const cluster = clusterOf(1)
    const endpoint = [...cluster.endpoints][0]!
    for (let n = 0; n < 2; n++) {
      const attempts = new DialAttempts(cluster)
      attempts.begin(attempts.next(null) as Endpoint)
      attempts.end('failure')
      attempts.blame({ reason: 'connect_timeout', detail: 'no answer', isSilent: true })
    }
    assert.equal(endpoint.isSilent, true)
  })

  it('names the upstream that has no endpoint yet', () => {
    const why = new DialAttempts(clusterOf(0)).next(null)
    assert.deepEqual(why, { reason: 'dns_failed', detail: "upstream 'orders' has no endpoint yet" })
  })
})
