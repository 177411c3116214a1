/** The examples that come with an application, by the commands of their pages, all in one namespace. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { dump, loadAll } from 'js-yaml'
import { get, type Json } from './lib/kubectl.ts'
import { RESOURCES } from './lib/manifests.ts'
import { APP_IMAGE, type World, world } from './lib/world.ts'

const ROOT = join(import.meta.dirname, '../..')
const EXAMPLES = [
  'beta-testing',
  'data-localization',
  'envoy-http',
  'fastapi-ambassador',
  'nginx-rate-limit',
  'payment',
] as const
/** The one whose service runs, and answers; of the others a pod each is enough. */
const WHOLE = 'payment'

/** The commands of a page, with quotes as a shell reads them. */
const commandsOf = (example: string): string[][] =>
  [...readFileSync(join(ROOT, 'examples', example, 'README.md'), 'utf8').matchAll(/^ {4}kubectl (.*)$/gm)].map(
    ([, line = '']) => [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word = '']) => quoted ?? word),
  )

/** The application as it stands, but for its image, for that of a registry cannot be had everywhere. */
function applicationOf(example: string): string {
  const objects = loadAll(readFileSync(join(ROOT, 'examples', example, 'app.yaml'), 'utf8')) as Json[]
  for (const { kind, spec } of objects) {
    if (kind !== 'Deployment') continue
    for (const container of spec.template.spec.containers)
      Object.assign(container, { image: APP_IMAGE, resources: RESOURCES })
    spec.template.spec.terminationGracePeriodSeconds = 5
    if (example !== WHOLE && spec.template.metadata.annotations === undefined) spec.replicas = 0
  }
  return objects.map((object) => dump(object)).join('---\n')
}

describe('the examples with an application', () => {
  let w: World
  const folder = mkdtempSync(join(tmpdir(), 'ambassador-e2e-examples-'))
  before(async () => {
    w = await world('e2e-examples')
  })
  after(async () => {
    rmSync(folder, { recursive: true })
    await w?.close()
  })

  /** Runs one command of a page. */
  const run = (args: readonly string[]): Promise<string> => {
    const here = args.map((arg) => (arg.startsWith('examples/') ? join(folder, arg) : arg))
    // What kubectl waits by itself is not enough where several other pods start on two cores.
    return w.kubectl.run(args[0] === 'wait' ? [...here, '--timeout=240s'] : here)
  }

  it('are applied as folders, each at once', async () => {
    for (const example of EXAMPLES) {
      const copy = join(folder, 'examples', example)
      cpSync(join(ROOT, 'examples', example), copy, { recursive: true })
      writeFileSync(join(copy, 'app.yaml'), applicationOf(example))
      const [apply = []] = commandsOf(example)
      assert.deepEqual(apply, ['apply', '-f', `examples/${example}/`])
      for (const line of (await run(apply)).trim().split('\n')) assert.match(line, / created$/)
    }
  })

  for (const example of EXAMPLES)
    it(`${example}: its Ambassador is ready, and in force in the sidecar of its application`, async () => {
      const [, wait = []] = commandsOf(example)
      assert.equal(wait[0], 'wait')
      await run(wait)
      const name = wait[1]!.replace('amb/', '')
      const { status, metadata } = await w.kubectl.get('amb', name)
      const states = Object.fromEntries(status.conditions.map((each: Json) => [each.type, each.status]))
      for (const type of ['Accepted', 'ResolvedRefs', 'Injected', 'Programmed', 'UpToDate'])
        assert.equal(states[type], 'True', `${type}: ${JSON.stringify(status.conditions)}`)
      assert.equal(status.observedGeneration ?? metadata.generation, metadata.generation)
      assert.equal(status.pods.injected, 1)
    })

  it('payment: the application gets the answer of its service', async () => {
    const [, , exec = []] = commandsOf(WHOLE)
    await w.kubectl.rollout('deployment/payment-provider')
    assert.equal(await run(exec), 'payment-provider\n')
  })

  it('fastapi-ambassador: a request that names no host is answered 404 by the sidecar', async () => {
    const { status, reason } = await get(w.kubectl, 'deploy/web', 8087)
    assert.deepEqual([status, reason], [404, 'no_route'])
  })
})
