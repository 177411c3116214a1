import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { loadAll } from 'js-yaml'
import { main } from '../../../cli/main.ts'
import { PRODUCT_VERSION } from '../../../common/names.ts'
import { parseProxyConfig } from '../../../common/proxy-config.ts'
import { execute } from '../../e2e/lib/kubectl.ts'
import { programArgs } from '../../helpers/built.ts'

const ROOT = join(import.meta.dirname, '../../..')

async function ambassador(args: readonly string[], input = '', program = ['cli/main.ts']) {
  const { code, stdout, stderr } = await execute(process.execPath, await programArgs([...program, ...args]), { input })
  return { code, out: stdout.trimEnd().split('\n'), err: stderr.trimEnd().split('\n') }
}

const GOOD = `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: payments }
spec:
  protocol: HTTP
  listen: { port: 8081 }
  upstreams:
  - name: live
    endpoints: [ { host: api.example.com, port: 80 } ]
`
const BAD = GOOD.replace('port: 8081', 'port: 0') + '  timeouts: { connect: 10s, reqest: 5s }\n'
const other = (name: string, port = 8081) => GOOD.replace('payments', name).replace('8081', String(port))
const deployment = (inject: string) => `apiVersion: apps/v1
kind: Deployment
metadata:
  name: checkout
spec:
  template:
    metadata:
      annotations:
        ambassador.dev/inject: ${inject}
`

describe('ambassador validate of an example', () => {
  const files = readdirSync(join(ROOT, 'examples'), { recursive: true, encoding: 'utf8' })
  for (const file of files.filter((name) => name.endsWith('.yaml') && !/\/(app|compose)\.yaml$/.test(name))) {
    it(`finds nothing wrong with examples/${file}`, async (t) => {
      // Within this process, for Node starts often enough below.
      const log = t.mock.method(console, 'log', () => {})
      const code = await main(['validate', '-f', join(ROOT, 'examples', file)])
      assert.match(String(log.mock.calls.at(-1)?.arguments[0]), /^\d+ Ambassadors?, 0 problems, 0 warnings$/)
      assert.equal(code, 0)
    })
  }
})

describe('ambassador validate', { concurrency: 3 }, () => {
  it('tells file, line, object, field, value and remedy of each problem and fails', async () => {
    const { code, out } = await ambassador(['validate', '-f', '-'], `${other('orders')}---\n${BAD}`)
    assert.equal(code, 1)
    assert.deepEqual(out, [
      "<stdin>:16: Ambassador 'payments': spec.listen.port: 0 is out of range, use 1 to 65535",
      "<stdin>:20: Ambassador 'payments': spec.timeouts.reqest: is not a field, did you mean request?",
      '2 Ambassadors, 2 problems, 0 warnings',
    ])
  })

  it('tells warnings and does not fail for them', async () => {
    const text = `${GOOD}  - { name: beta, dns: { hostname: b, port: 80 } }\n`
    const { code, out } = await ambassador(['validate', '-f', '-'], text)
    assert.equal(code, 0)
    assert.deepEqual(out, [
      "<stdin>:10: warning: Ambassador 'payments': spec.upstreams[1]: upstream 'beta' is used by no route: all traffic goes to 'live', remove it or put it first",
      '1 Ambassador, 0 problems, 1 warning',
    ])
  })

  it('prints problems only with --quiet', async () => {
    assert.deepEqual((await ambassador(['validate', '-qf', '-'], GOOD)).out, [''])
  })

  it('finds two Ambassadors with one port on one workload', async () => {
    const { code, out } = await ambassador(
      ['validate', '-f', '-'],
      [GOOD, other('orders'), deployment('payments, orders')].join('---\n'),
    )
    assert.equal(code, 1)
    assert.equal(
      out[0],
      "<stdin>:29: Deployment 'checkout': spec.template.metadata.annotations.ambassador.dev/inject: Ambassadors 'payments' and 'orders' both listen on port 8081: give one of them another port",
    )
  })

  it('warns of two Ambassadors with one name, of which a cluster keeps the last', async () => {
    const { code, out } = await ambassador(['validate', '-f', '-'], [GOOD, GOOD].join('---\n'))
    assert.equal(code, 0)
    assert.match(
      out[0]!,
      /^<stdin>:\d+: warning: Ambassador 'payments': metadata\.name: 'payments' is the name of the Ambassador at <stdin>:\d+ too: the one that is applied last replaces the other, give it another name$/,
    )
  })

  it('finds nothing when their ports differ, or injection is off', async () => {
    const differ = [GOOD, other('orders', 8082), deployment('payments,orders')].join('---\n')
    const off = [GOOD, other('orders'), deployment('"false"')].join('---\n')
    for (const text of [differ, off]) assert.equal((await ambassador(['validate', '-f', '-'], text)).code, 0)
  })

  it('says what is wrong with the head of an object', async () => {
    const text = 'apiVersion: ambassador.dev/v1\nkind: Ambasador\nmetadata: { name: A b }\nspec: {}\n'
    assert.deepEqual((await ambassador(['validate', '-f', '-'], text)).out.slice(0, 3), [
      "<stdin>:1: Ambasador 'A b': apiVersion: 'ambassador.dev/v1' is not known, use ambassador.dev/v1alpha1",
      "<stdin>:2: Ambasador 'A b': kind: 'Ambasador' is not known, use Ambassador",
      "<stdin>:3: Ambasador 'A b': metadata.name: 'A b' is not the name of an object: use lower-case letters, digits, dashes and dots",
    ])
  })

  it('fails for a file that holds no Ambassador, is no YAML or does not exist', async () => {
    assert.deepEqual(await ambassador(['validate', '-f', '-'], 'kind: Pod\n'), {
      code: 1,
      out: ['-: there is no Ambassador in it'],
      err: [''],
    })
    assert.match((await ambassador(['validate', '-f', '-'], 'a: [')).out[0]!, /^<stdin>:\d+: is not YAML: /)
    assert.deepEqual((await ambassador(['validate', '-f', '/no/file'])).out, ['/no/file: there is no such file'])
  })
})

describe('ambassador render', { concurrency: 3 }, () => {
  it('prints the ConfigMap of each Ambassador, which a sidecar reads', async () => {
    const { code, out, err } = await ambassador(
      ['render', '-n', 'shop', '-f', '-'],
      `${GOOD}---\nkind: Pod\n---\n${other('orders')}`,
    )
    assert.equal(code, 0)
    assert.deepEqual(err, [''])
    const maps = loadAll(out.join('\n')) as { kind: string; metadata: object; data: Record<string, string> }[]
    assert.deepEqual(
      maps.map(({ metadata }) => metadata),
      [
        {
          name: 'ambassador-payments',
          namespace: 'shop',
          labels: { 'ambassador.dev/ambassador': 'payments', 'app.kubernetes.io/managed-by': 'ambassador-operator' },
        },
        {
          name: 'ambassador-orders',
          namespace: 'shop',
          labels: { 'ambassador.dev/ambassador': 'orders', 'app.kubernetes.io/managed-by': 'ambassador-operator' },
        },
      ],
    )
    const config = parseProxyConfig(JSON.parse(maps[0]!.data['config.json']!))
    assert.deepEqual(config.ambassador, { namespace: 'shop', name: 'payments', generation: 0 })
  })

  it('says that the operator fills in the pods of a Service, unless an argument stands in for it', async () => {
    const text = GOOD.replace(/endpoints: .*/, 'service: { name: orders, port: 80 }')
    const { code, out, err } = await ambassador(['render', '-f', '-'], text)
    assert.equal(code, 0)
    assert.match(
      err[0]!,
      /warning: spec.upstreams: Service 'orders' of namespace 'default' cannot be looked up outside a cluster/,
    )
    assert.match(out.join(), /"kind":"service"/)
    const given = await ambassador(['render', '--service', 'orders=localhost:8080', '-f', '-'], text)
    assert.deepEqual(given.err, [''])
    assert.match(given.out.join(), /"hostname":"localhost","kind":"dns","port":8080/)
    assert.match(
      (await ambassador(['render', '--service', 'orders', '-f', '-'], text)).err[0]!,
      /--service: 'orders' is not a stand-in/,
    )
  })

  it('leaves out what is invalid, says why and fails', async () => {
    const { code, out, err } = await ambassador(['render', '-f', '-'], `${BAD}---\n${other('orders')}`)
    assert.equal(code, 1)
    assert.deepEqual(err, [
      '<stdin>:6: spec.listen.port: 0 is out of range, use 1 to 65535',
      '<stdin>:10: spec.timeouts.reqest: is not a field, did you mean request?',
    ])
    assert.equal(loadAll(out.join('\n')).length, 1)
  })

  it('does not pass over a field that does not exist, which would have no effect', async () => {
    const { code, out, err } = await ambassador(
      ['render', '-f', '-'],
      `${GOOD.trimEnd()}\n  timeout: { connect: 1s }\n`,
    )
    assert.deepEqual([code, out, err.length], [1, [''], 1])
    assert.match(err[0]!, /^<stdin>:\d+: spec\.timeout: is not a field, did you mean timeouts\?$/)
  })
})

describe('ambassador', { concurrency: 3 }, () => {
  it('suggests the nearest verb', async () => {
    assert.deepEqual(await ambassador(['validte']), {
      code: 2,
      out: [''],
      err: ["ambassador: 'validte' is not a verb, did you mean validate?"],
    })
    assert.match((await ambassador(['constructor'])).err[0]!, /^ambassador: 'constructor' is not a verb, use one of /)
  })

  it('lists its verbs, and fails when none is given', async () => {
    const { code, out } = await ambassador(['--help'])
    assert.equal(code, 0)
    assert.ok(out.some((line) => /^ {2}validate +check /.test(line)))
    assert.equal((await ambassador([])).code, 2)
  })

  it('shows the usage of a verb on request and after wrong arguments', async () => {
    assert.equal((await ambassador(['validate', '--help'])).code, 0)
    const { code, err } = await ambassador(['validate', '--fil', 'x'])
    assert.equal(code, 2)
    assert.match(err[0]!, /^ambassador validate: Unknown option '--fil'/)
    assert.ok(err.some((line) => line.startsWith('Usage: ambassador validate')))
    assert.match((await ambassador(['render'])).err[0]!, /^ambassador render: no file is named: use -f FILE/)
  })

  it('tells its version, also when started by its bin file', async () => {
    assert.deepEqual((await ambassador(['--version'])).out, [PRODUCT_VERSION])
    assert.deepEqual((await ambassador(['--version'], '', ['cli/ambassador.js'])).out, [PRODUCT_VERSION])
  })
})
