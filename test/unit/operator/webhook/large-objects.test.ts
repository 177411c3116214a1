import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { silentLog } from '../../../../common/log.ts'
import { Env } from '../../../../common/names.ts'
import type { Json, JsonObject } from '../../../../operator/webhook/json.ts'
import { Lookup } from '../../../../operator/webhook/lookup.ts'
import { applyPatch } from '../../../../operator/webhook/patch.ts'
import { answer, Reviewer, type Verdict } from '../../../../operator/webhook/review.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'
import { ambassador, nodes, pod, SETTINGS } from '../../../helpers/injection.ts'

// API servers ask before they check lengths, so whoever may create a pod may send anything that fits into a review; and while one review is
// answered, all others wait. These bodies have half a megabyte; work that grows with the square of it took a minute and more.

const MANY = 20_000
/** CPU time, so that a machine that stands still does not count. */
const MOST_CPU_MS = 4000

const INJECT = 'ambassador.dev/inject'
const STATUS = 'ambassador.dev/status'

const many = <T>(make: (index: number) => T): T[] => Array.from({ length: MANY }, (_, index) => make(index))
const named = (prefix: string): JsonObject[] => many((index) => ({ name: `${prefix}${index}` }))

async function verdictOf(object: JsonObject): Promise<Verdict> {
  const clock = new FakeClock()
  const env = [{ name: 'PGHOST', value: '127.0.0.1' }]
  const known = [
    ambassador('payments'),
    ambassador('orders', { port: 5432, env }),
    ambassador('cache', { port: 6379, listenSocket: '/run/cache/redis.sock' }),
  ]
  const source = {
    cached: (_: string, name: string) => known.find((each) => each.name === name),
    names: () => known.map((each) => each.name),
    fetch: async () => undefined,
  }
  const reviewer = new Reviewer({
    lookup: new Lookup(source, clock),
    nodes: nodes(),
    settings: SETTINGS,
    clock,
    log: silentLog,
  })
  const request = { uid: 'u', kind: 'Pod', namespace: 'shop', operation: 'CREATE', subResource: '', dryRun: false }
  const before = process.cpuUsage()
  const verdict = await reviewer.pod({ ...request, object }, Number.MAX_SAFE_INTEGER)
  const { user, system } = process.cpuUsage(before)
  assert.ok((user + system) / 1000 < MOST_CPU_MS, `${(user + system) / 1000} ms of CPU`)
  return verdict
}

/** A pod with a sidecar that looks like ours and a status that says what it added. */
function forged(added: JsonObject, sidecar: JsonObject, spec: JsonObject): JsonObject {
  const container = { name: 'ambassador', env: [{ name: Env.ambassadors, value: 'payments' }], ...sidecar }
  const status = {
    version: '0',
    image: 'image:1',
    mode: 'Native',
    ambassadors: [{ name: 'payments', configHash: '0' }],
    added: { volumes: [], hostnames: [], annotations: [], ...added },
    before: {},
    hash: '0',
  }
  return pod({ [INJECT]: 'payments', [STATUS]: JSON.stringify(status) }, { initContainers: [container], ...spec })
}

describe('a pod as large as a review can be', () => {
  it('with very many names is refused at once', async () => {
    const names = [0, 1, 2, 3, 4].flatMap((block) => many((index) => `a${block * MANY + index}`))
    const { message } = await verdictOf(pod({ [INJECT]: names.join(',') }))
    assert.equal(message, `${INJECT}: ${names.length} Ambassadors are named; a pod can have at most 16`)
  })

  it('with very many annotations that we do not know is told of the first, within what API servers pass on', async () => {
    const unknown = Object.fromEntries(many((index): [string, Json] => [`ambassador.dev/log-lev${index}`, '']))
    const verdict = await verdictOf(pod({ ...unknown, [INJECT]: 'payments' }))
    const { warnings } = answer('u', verdict)['response'] as { warnings: string[] }
    assert.equal(
      warnings[0],
      'annotation "ambassador.dev/log-lev0" is not known and does nothing, did you mean "ambassador.dev/log-level"?',
    )
    assert.ok(warnings.join('').length <= 4096)
  })

  it('with very many containers is injected at once, each with its variables', async () => {
    const object = pod({ [INJECT]: 'orders' }, { containers: named('c') })
    const { spec } = applyPatch(object, (await verdictOf(object)).patch) as { spec: { containers: JsonObject[] } }
    assert.equal(spec.containers.filter(({ env }) => env !== undefined).length, MANY)
  })

  it('with very many containers is injected at once, each with the directory of the socket', async () => {
    const object = pod({ [INJECT]: 'cache' }, { containers: named('c') })
    const { spec } = applyPatch(object, (await verdictOf(object)).patch) as { spec: { containers: JsonObject[] } }
    assert.equal(spec.containers.filter(({ volumeMounts }) => volumeMounts !== undefined).length, MANY)
  })

  it('with a status that lists very many host names, volumes and variables loses them at once', async () => {
    const hostnames = many((index) => `h${index}`)
    const volumes = many((index) => `ambassador-config-${index}`)
    const env = many((index) => `PGHOST${index}`)
    const mounts = volumes.map((name) => ({ mountPath: `/etc/ambassador/config/${name}`, name }))
    const objects = [
      forged({ hostnames }, {}, { hostAliases: [{ hostnames, ip: '127.0.0.1' }] }),
      forged({ volumes }, { volumeMounts: mounts }, { volumes: volumes.map((name) => ({ name })) }),
      forged({ env: { app: env } }, {}, { containers: [{ name: 'app', env: env.map((name) => ({ name })) }] }),
    ]
    for (const object of objects) assert.equal((await verdictOf(object)).result, 'injected')
  })
})
