/** What the pages tell a person to apply or to start is there, and holds what is read from it. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { load } from 'js-yaml'
import { run as wait } from '../../cli/commands/wait.ts'
import { parseDocuments } from '../../cli/documents.ts'
import { Annotation, Env } from '../../common/names.ts'
import type { AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { checkObject } from '../../operator/api/check.ts'
import { PlainEnv, readSettings } from '../../proxy/config/env.ts'
import { closedPort } from '../helpers/tcp.ts'

const ROOT = join(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const filesOf = (folder: string, end: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(end))
    .map((name) => join(folder, name))

// biome-ignore lint/suspicious/noExplicitAny: objects as a person wrote them
type Json = any

const PAGES = ['README.md', ...filesOf('docs', '.md'), ...filesOf('examples', '.md')]
/** What a page applies, with the page that says so. */
const APPLIED = PAGES.flatMap((page) =>
  [...read(page).matchAll(/kubectl apply -f (examples\/\S+)/g)].map(([, target = '']) => ({ page, target })),
)

/** The files that kubectl reads: of a folder those that stand directly in it. */
const readByKubectl = (target: string): string[] =>
  statSync(join(ROOT, target)).isDirectory()
    ? readdirSync(join(ROOT, target))
        .filter((name) => /\.(ya?ml|json)$/.test(name))
        .map((name) => join(target, name))
    : [target]

const objectsOf = (target: string): Json[] =>
  readByKubectl(target).flatMap((file) => parseDocuments(read(file), file).map(({ value }) => value))

const isPartOf = (part: object, whole: Json): boolean =>
  Object.entries(part).every(([key, value]) => whole?.[key] === value)
const templatesOf = (objects: readonly Json[]): Json[] =>
  objects.flatMap(({ spec }) => (spec?.template === undefined ? [] : [spec.template]))

/** What is wrong with an object, among those that are applied with it. A kind that is missing here needs a check first. */
const CHECKS: Readonly<Record<string, (object: Json, all: readonly Json[]) => string[]>> = {
  Ambassador: (object) => checkObject(object).map(({ field, message }) => `${field}: ${message}`),
  Deployment: ({ apiVersion, spec }, all) => {
    const { metadata, spec: pod } = spec.template
    const injected: string[] = metadata.annotations?.[Annotation.inject]?.split(',') ?? []
    const named = all.filter(({ kind }) => kind === 'Ambassador').map((object) => object.metadata.name)
    return [
      ...(apiVersion === 'apps/v1' ? [] : ['apiVersion']),
      ...(isPartOf(spec.selector.matchLabels, metadata.labels) ? [] : ['its selector selects other pods']),
      ...injected.filter((name) => !named.includes(name)).map((name) => `injects '${name}', which is not applied`),
      ...pod.containers
        .filter((container: Json) => !container.name || !/^[\w./-]+:[\w.-]+$/.test(container.image))
        .map((container: Json) => `container ${JSON.stringify(container)}`),
    ]
  },
  Service: ({ apiVersion, spec }, all) => {
    const pods = templatesOf(all).filter(({ metadata }) => isPartOf(spec.selector, metadata.labels))
    const ports = pods.flatMap((pod) => pod.spec.containers).flatMap((each: Json) => each.ports ?? [])
    return [
      ...(apiVersion === 'v1' ? [] : ['apiVersion']),
      ...(pods.length === 1 ? [] : [`selects ${pods.length} workloads`]),
      ...spec.ports
        .filter(({ targetPort, port }: Json) => !ports.some((each) => each.containerPort === (targetPort ?? port)))
        .map(({ port }: Json) => `nothing listens behind port ${port}`),
    ]
  },
  Secret: ({ apiVersion, stringData }) => [
    ...(apiVersion === 'v1' ? [] : ['apiVersion']),
    ...Object.entries(stringData).flatMap(([key, value]) => (typeof value === 'string' ? [] : [`key ${key}`])),
  ],
  ConfigMap: ({ apiVersion, data }) => [
    ...(apiVersion === 'v1' ? [] : ['apiVersion']),
    ...Object.entries(data).flatMap(([key, value]) => (typeof value === 'string' ? [] : [`key ${key}`])),
  ],
}

describe('what the pages apply', () => {
  it('exists, and every application of the examples is applied by a page', () => {
    for (const { page, target } of APPLIED) assert.ok(existsSync(join(ROOT, target)), `${page}: ${target}`)
    const files = APPLIED.flatMap(({ target }) => readByKubectl(target))
    for (const file of filesOf('examples', 'app.yaml')) assert.ok(files.includes(file), file)
  })

  for (const target of new Set(APPLIED.map((each) => each.target)))
    it(`${target} holds nothing but objects that fit together`, () => {
      const objects = objectsOf(target)
      assert.ok(objects.length > 0)
      for (const object of objects) {
        const { apiVersion, kind, metadata } = object
        const name = `${target}: ${kind} '${metadata?.name}'`
        assert.ok(apiVersion && kind && metadata?.name, name)
        assert.ok(Object.hasOwn(CHECKS, kind), `${name}: the kind`)
        assert.deepEqual(CHECKS[kind]!(object, objects), [], name)
      }
    })

  it('is what the next commands of the page name', () => {
    for (const page of new Set(APPLIED.map((each) => each.page))) {
      const objects = APPLIED.filter((each) => each.page === page).flatMap(({ target }) => objectsOf(target))
      // Where no application comes with the example, the page names the reader's own.
      const isWhole = objects.some(({ kind }) => kind === 'Deployment')
      const isThere = (kind: string, name = '') =>
        objects.some((object) => object.kind === kind && object.metadata.name === name)
      const text = read(page)
      for (const [, name] of text.matchAll(/kubectl wait amb\/(\S+) /g)) assert.ok(isThere('Ambassador', name), page)
      for (const [, name] of text.matchAll(/kubectl exec deploy\/(\S+) /g))
        if (isWhole) assert.ok(isThere('Deployment', name), page)
      for (const [, port] of text.matchAll(/kubectl exec .* http:\/\/localhost:(\d+)\//g)) {
        const specs: AmbassadorSpec[] = objects.filter(({ kind }) => kind === 'Ambassador').map(({ spec }) => spec)
        assert.ok(
          specs.some(({ listen }) => listen?.port === Number(port)),
          `${page}: ${port}`,
        )
      }
    }
  })
})

/** The keys of the Compose file format that are used here. */
const SERVICE_KEYS = ['image', 'command', 'network_mode', 'environment', 'volumes', 'healthcheck', 'depends_on']
const HEALTHCHECK_KEYS = ['test', 'interval', 'timeout', 'retries', 'start_period']

interface Composed {
  readonly where: string
  /** Folder that paths in it begin at. */
  readonly folder: string
  readonly file: { name?: string; services: Record<string, Json> }
}

/** Files, and the blocks of pages that show services. */
const COMPOSED: readonly Composed[] = [
  ...filesOf('examples', 'compose.yaml').map((where) => ({
    where,
    folder: dirname(where),
    file: load(read(where)) as Composed['file'],
  })),
  ...[...PAGES, 'cli/commands/wait.ts'].flatMap((where) =>
    [...read(where).matchAll(/(?:^ +(?:ambassador|app):.*\n(?: {6,}.*\n)*)+/gm)]
      .filter(([block]) => block.includes('network_mode'))
      .map(([block]) => ({ where, folder: dirname(where), file: { services: load(block) as Record<string, Json> } })),
  ),
]

describe('what the pages start with Compose', () => {
  it('is found in the examples, on the page about starting and in the usage of wait', () => {
    assert.deepEqual(COMPOSED.map(({ where }) => where).sort(), [
      'cli/commands/wait.ts',
      'docs/lifecycle.md',
      'examples/compose/compose.yaml',
      'examples/nginx-rate-limit/compose/compose.yaml',
    ])
  })

  for (const { where, folder, file } of COMPOSED)
    it(`${where} has keys, services, variables and commands that exist`, async () => {
      const { name: _, services, ...others } = file
      assert.deepEqual(others, {})
      const only = (keys: readonly string[], object: object) =>
        assert.deepEqual(
          Object.keys(object).filter((key) => !keys.includes(key)),
          [],
        )
      for (const service of Object.values(services)) {
        only(SERVICE_KEYS, service)
        only(HEALTHCHECK_KEYS, service.healthcheck ?? {})
        const shared = /^service:(.+)$/.exec(service.network_mode ?? '')?.[1]
        for (const each of [shared ?? [], Object.keys(service.depends_on ?? {})].flat())
          assert.ok(Object.hasOwn(services, each), each)
        for (const volume of service.volumes ?? []) assert.ok(existsSync(join(ROOT, folder, volume.split(':')[0])))
      }
      const { environment = {}, healthcheck, volumes = [] } = services['ambassador']
      only([...Object.values(PlainEnv), ...Object.values(Env)], environment)
      for (const value of Object.values(environment)) assert.equal(typeof value, 'string')
      if (Object.keys(environment).length > 0) {
        const { source } = readSettings(environment)
        if (source.kind === 'file') assert.ok(volumes.some((volume: string) => volume.split(':')[1] === source.path))
        if (source.kind === 'fixed')
          for (const each of upstreamsOf(healthcheck?.test ?? [])) assert.equal(each, source.config.clusters[0]!.name)
      }
      if (healthcheck !== undefined) {
        const [shell, program, verb, ...args] = healthcheck.test
        assert.deepEqual([shell, program, verb], ['CMD', 'ambassador', 'wait'])
        // Wrong usage is an error that it throws; here it only finds no sidecar.
        const env = { [Env.telemetryPort]: `${await closedPort()}`, [Env.adminPort]: `${await closedPort()}` }
        assert.equal(await wait(args, env), 1)
      }
    })

  it('a docker command of a page sets variables that the image takes', () => {
    const commands = PAGES.flatMap((page) => read(page).match(/docker run .* -e .*/g) ?? [])
    assert.ok(commands.length > 0)
    for (const command of commands) {
      const env = Object.fromEntries([...command.matchAll(/-e ([A-Z_]+)=(\S+)/g)].map(([, key, value]) => [key, value]))
      assert.ok(
        Object.keys(env).every((key) => [...Object.values(PlainEnv), ...Object.values(Env)].includes(key as never)),
      )
      assert.equal(readSettings(env).source.kind, 'fixed')
    }
  })
})

const upstreamsOf = (words: readonly string[]): string[] =>
  words.filter((_, index) => words[index - 1] === '--upstream')
