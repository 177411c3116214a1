import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { load, loadAll } from 'js-yaml'
import { CommandError } from '../../build/machine/exec.ts'
import { PRODUCT_VERSION } from '../../common/names.ts'
import { readSettings } from '../../operator/settings.ts'
import { DEFAULT_SETTINGS } from '../../operator/webhook/settings.ts'
import { goldenFiles, matchGolden } from '../helpers/golden.ts'
import { CHART, helm, template } from '../helpers/helm.ts'

// biome-ignore lint/suspicious/noExplicitAny: manifests of a dozen kinds, looked at by path
type Manifest = any

const ROOT = join(import.meta.dirname, '../..')
const read = (...path: string[]): string => readFileSync(join(...path), 'utf8')
const parse = (rendered: string): Manifest[] => loadAll(rendered).filter((document) => document != null) as Manifest[]
const of = (kind: string, manifests: readonly Manifest[]): Manifest => {
  const found = manifests.filter((manifest) => manifest.kind === kind)
  assert.equal(found.length, 1, `one ${kind}`)
  return found[0]
}

/** What the one container of a Deployment finds in its environment, as far as the chart writes it. */
const environment = (spec: Manifest): Record<string, string> =>
  Object.fromEntries(spec.template.spec.containers[0].env.map(({ name, value }: Manifest) => [name, value ?? '']))

/** The CRD is generated and golden elsewhere; here it would be two thirds of each file. */
const withoutCrd = (rendered: string): string =>
  rendered
    .split(/^---\n/m)
    .filter((document) => !document.includes('kind: CustomResourceDefinition'))
    .join('---\n')

describe('the chart', () => {
  for (const { name, path } of goldenFiles('chart', '.values.yaml')) {
    it(`renders ${name} as expected`, async () => {
      matchGolden(`chart/${name}.golden.yaml`, withoutCrd(await template(path)))
    })

    it(`passes helm lint with ${name}`, async () => {
      assert.match(await helm('lint', '--strict', CHART, '--values', path), /0 chart\(s\) failed/)
    })
  }

  it('carries the CRD of crds/, kept by an uninstall, unless it is switched off', async () => {
    const file = readdirSync(join(ROOT, 'crds')).find((name) => name.endsWith('.yaml')) ?? ''
    const expected = load(read(ROOT, 'crds', file)) as Manifest
    const rendered = of('CustomResourceDefinition', parse(await template()))
    assert.deepEqual(rendered.spec, expected.spec)
    assert.equal(rendered.metadata.annotations['helm.sh/resource-policy'], 'keep')
    assert.doesNotMatch(await template(undefined, 'crds.enabled=false'), /CustomResourceDefinition/)
  })

  it('warns of an upstream that nobody verifies, and never refuses an Ambassador for it', async () => {
    const rendered = parse(await template())
    const named = (kind: string): Manifest =>
      rendered.find((each) => each.kind === kind && each.metadata.name === 'ambassador-unverified')
    assert.deepEqual(named('ValidatingAdmissionPolicyBinding').spec, {
      policyName: 'ambassador-unverified',
      validationActions: ['Warn'],
    })
    const { failurePolicy, validations } = named('ValidatingAdmissionPolicy').spec
    assert.equal(failurePolicy, 'Ignore')
    assert.equal(validations.length, 2)
    for (const { expression, messageExpression } of validations) {
      assert.match(expression, /insecureSkipVerify/)
      assert.match(messageExpression, /u\.name.*set (?:sentinel\.)?tls\.ca and remove this/s)
    }
  })

  it('has the version of the package', () => {
    const { version } = JSON.parse(read(ROOT, 'package.json'))
    const chart = load(read(CHART, 'Chart.yaml')) as Manifest
    assert.deepEqual([chart.version, chart.appVersion, PRODUCT_VERSION], [version, version, version])
    assert.match(chart.annotations['artifacthub.io/images'], new RegExp(`ambassador-operator:${version}\n`))
  })

  it('renders no certificate, no caBundle and no number of replicas', async () => {
    const manifests = parse(await template())
    assert.equal(of('Deployment', manifests).spec.replicas, undefined)
    for (const webhook of of('MutatingWebhookConfiguration', manifests).webhooks)
      assert.equal(webhook.clientConfig.caBundle, undefined)
    assert.deepEqual(
      manifests.filter(({ kind }) => kind === 'Secret'),
      [],
    )
  })

  it('gives no right on Secrets outside its namespace, and get alone where it is asked for', async () => {
    const rights = (manifests: readonly Manifest[]): string[] =>
      manifests
        .filter(({ kind }) => kind === 'ClusterRole' || kind === 'Role')
        .flatMap((role) =>
          role.rules
            .filter((rule: Manifest) =>
              [...rule.resources, ...rule.apiGroups].some((r) => r === 'secrets' || r === '*'),
            )
            .map(
              (rule: Manifest) =>
                `${role.metadata.namespace ?? 'everywhere'}: ${rule.verbs} ${rule.resourceNames ?? 'any name'}`,
            ),
        )
    const own = ['ambassador-system: create any name', 'ambassador-system: get,update ambassador-operator-ca']
    assert.deepEqual(rights(parse(await template())), own)
    assert.deepEqual(rights(parse(await template(undefined, 'operator.secretChecks={shop}'))), [
      ...own,
      'shop: get any name',
    ])
  })

  it('lets a pod of the operator go only when another is ready, and leaves it the time to be forgotten', async () => {
    const { spec } = of('Deployment', parse(await template()))
    assert.deepEqual(spec.strategy.rollingUpdate, { maxSurge: 1, maxUnavailable: 0 })
    const { shutdownDelayMs } = readSettings(environment(spec))
    assert.ok(shutdownDelayMs >= 5_000)
    assert.ok(spec.template.spec.terminationGracePeriodSeconds * 1000 >= shutdownDelayMs + 10_000)
  })

  it('gives the operator the settings that the values say, under names that it reads', async () => {
    const { spec } = of('Deployment', parse(await template(join(ROOT, 'test/golden/chart/everything.values.yaml'))))
    const { injector, ...own } = readSettings(environment(spec))
    assert.deepEqual(
      [own.replicas, own.logLevel, own.secretChecks, injector.image, injector.imagePullPolicy],
      [3, 'debug', ['shop', 'billing'], 'registry.example.com/ambassador/proxy:1.2.3', 'Always'],
    )
    assert.deepEqual(injector.resources, {
      cpuRequest: '25m',
      cpuLimit: '500m',
      memoryRequest: '48Mi',
      memoryLimit: '256Mi',
      guaranteedCpu: '200m',
    })
    assert.deepEqual(
      [injector.runAsUser, injector.nativeSidecar, injector.logLevel, injector.readiness, injector.drainSeconds],
      [1000650000, 'true', 'warn', 'UpstreamHealthy', 60],
    )
    assert.deepEqual(injector.excludedNamespaces, ['monitoring', 'ci'])
  })

  it('has the defaults that the operator has without it', async () => {
    const { spec } = of('Deployment', parse(await template()))
    const { image, ...injector } = readSettings(environment(spec)).injector
    assert.equal(image, `ambassador-proxy:${PRODUCT_VERSION}`)
    assert.deepEqual(injector, DEFAULT_SETTINGS)
  })
})

describe('values.schema.json', () => {
  const refused: readonly (readonly [set: string, words: RegExp])[] = [
    ['operater.replicas=2', /operater/],
    ['operator.replica=2', /at '\/operator': additional properties 'replica' not allowed/],
    ['operator.replicas=0', /at '\/operator\/replicas': minimum: got 0, want 1/],
    [
      'operator.image.pullPolicy=Sometimes',
      /at '\/operator\/image\/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'/,
    ],
    ['operator.image.registry=x', /at '\/operator\/image': additional properties 'registry' not allowed/],
    ['operator.image.repository=Registry/X', /at '\/operator\/image\/repository'/],
    ['operator.logLevel=loud', /at '\/operator\/logLevel'/],
    ['operator.secretChecks=shop', /at '\/operator\/secretChecks': got string, want array/],
    ['operator.secretChecks={Shop}', /at '\/operator\/secretChecks\/0'/],
    ['operator.webhook.failurePolicy=Deny', /at '\/operator\/webhook\/failurePolicy'/],
    ['operator.resources.limits.memory=lots', /at '\/operator\/resources\/limits\/memory'/],
    ['operator.resources.limit.memory=1Gi', /additional properties 'limit' not allowed/],
    ['proxy.runAsUser=0', /at '\/proxy\/runAsUser'/],
    ['proxy.nativeSidecar=maybe', /at '\/proxy\/nativeSidecar'/],
    ['proxy.readiness=Ready', /at '\/proxy\/readiness': value must be one of 'Listening', 'UpstreamHealthy'/],
    ['proxy.drainSeconds=-1', /at '\/proxy\/drainSeconds'/],
    ['networkPolicy.enabled=1', /at '\/networkPolicy\/enabled': got number, want boolean/],
    ['serviceMonitor.interval=30', /at '\/serviceMonitor\/interval'/],
  ]
  for (const [set, words] of refused) {
    it(`refuses ${set}`, async () => {
      await assert.rejects(
        template(undefined, set),
        (error) => error instanceof CommandError && words.test(error.stderr),
      )
    })
  }

  it('is strict in every object of its own', () => {
    const loose: string[] = []
    const walk = (schema: Manifest, path: string): void => {
      if (schema === null || typeof schema !== 'object') return
      if (schema.properties !== undefined && schema.additionalProperties !== false) loose.push(path)
      for (const [key, value] of Object.entries(schema)) walk(value, `${path}/${key}`)
    }
    walk(JSON.parse(read(CHART, 'values.schema.json')), '')
    assert.deepEqual(loose, [])
  })

  it('knows exactly the values of values.yaml', () => {
    const schema = JSON.parse(read(CHART, 'values.schema.json'))
    const resolve = (node: Manifest): Manifest =>
      node.$ref === undefined ? node : schema.definitions[node.$ref.split('/').pop()]
    const known = (node: Manifest, path: string): string[] =>
      Object.entries(resolve(node).properties ?? {}).flatMap(([key, value]) => [
        `${path}${key}`,
        ...known(value, `${path}${key}.`),
      ])
    const written = (value: Manifest, path: string): string[] =>
      value === null || typeof value !== 'object' || Array.isArray(value)
        ? []
        : Object.entries(value).flatMap(([key, child]) => [`${path}${key}`, ...written(child, `${path}${key}.`)])
    // `global` comes from a parent chart; a limit of CPU is better not set.
    const silent = ['global', 'operator.resources.limits.cpu', 'proxy.resources.limits.cpu']
    assert.deepEqual(
      known(schema, '')
        .filter((path) => !silent.includes(path))
        .sort(),
      written(load(read(CHART, 'values.yaml')), '').sort(),
    )
  })
})
