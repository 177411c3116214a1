/** The four commands of the README, as they are written there. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type World, world } from './lib/world.ts'

const root = join(import.meta.dirname, '../..')
const COMMANDS = [
  'kubectl apply -f examples/payments.yaml',
  'kubectl annotate deployment checkout ambassador.dev/inject=payments',
  'kubectl wait amb/payments --for=condition=Ready',
  'kubectl exec deploy/checkout -c app -- wget -qO- http://localhost:8081/v1/charges',
]

describe('the commands of the README', () => {
  let w: World
  before(async () => {
    w = await world('e2e-quickstart')
  })
  after(() => w.close())

  it('stand in the README', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8')
    for (const command of COMMANDS) assert.ok(readme.includes(command), command)
  })

  it('work one after the other without a pause', async () => {
    let last = ''
    for (const command of COMMANDS) {
      const args = command
        .split(' ')
        .slice(1)
        .map((arg) => (arg.startsWith('examples/') ? join(root, arg) : arg))
      // What kubectl waits by itself is not enough where several other pods start on two cores.
      if (args[0] === 'wait') args.push('--timeout=240s')
      last = await w.kubectl.run(args)
    }
    assert.notEqual(last.trim(), '')
    const amb = await w.kubectl.run(['get', 'amb'])
    console.log(amb.replace(/^/gm, '    '))
    assert.match(amb, /^NAME +PROTOCOL +PORT +READY +REASON +PODS +CURRENT +AGE$/m)
    assert.match(amb, /^payments +HTTP +8081 +True +\S+ +1\/1 +1 /m)
  })

  it('the example may be applied again without a change', async () => {
    const out = await w.kubectl.run(['apply', '-f', join(root, 'examples/payments.yaml')])
    for (const line of out.trim().split('\n')) assert.match(line, /unchanged|configured/)
    const checkout = await w.kubectl.get('deployment', 'checkout')
    assert.equal(
      checkout.spec.template.metadata.annotations['ambassador.dev/inject'],
      'payments',
      'the annotation survives an apply',
    )
  })
})
