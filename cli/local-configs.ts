/** The Ambassadors of files as configs, for a proxy outside Kubernetes: rendered with the operator's own code. */
import { dirname, resolve } from 'node:path'
import { KIND } from '../common/names.ts'
import type { ProxyConfig } from '../common/proxy-config.ts'
import type { Ambassador } from '../operator/api/ambassador.ts'
import { checkObject } from '../operator/api/check.ts'
import { problemText } from '../operator/render/problems.ts'
import { render } from '../operator/render/render.ts'
import { Compiler } from '../proxy/config/compile.ts'
import { type RefDirs, readRef, refText } from '../proxy/config/refs.ts'
import { TlsContexts } from '../proxy/tls/contexts.ts'
import { readDocuments, type SourceDocument, UnreadableError } from './documents.ts'
import { liftLocalRefs, restoreLocalRefs } from './local-refs.ts'
import { noStandIn, standIns } from './services.ts'
import { unknownFields } from './unknown-fields.ts'

/** What files came to. */
export interface LoadedFiles {
  readonly configs: readonly ProxyConfig[]
  /** Lines that say what is wrong; the configs are then not to be used. */
  readonly problems: readonly string[]
  readonly warnings: readonly string[]
}

/**
 * Reads and renders every Ambassador in the files. `services` are stand-ins for Kubernetes Services, see standIns().
 * @throws {UsageError} for a stand-in that is none
 */
export async function loadFiles(
  files: readonly string[],
  secrets: string | null,
  services: readonly string[] = [],
): Promise<LoadedFiles> {
  let documents: SourceDocument[]
  try {
    documents = await readDocuments(files)
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    return { configs: [], problems: [error.message], warnings: [] }
  }
  const ambassadors = documents.filter(({ value }) => (value as { kind?: unknown } | null)?.kind === KIND)
  if (ambassadors.length === 0) {
    return { configs: [], problems: [`${files.join(', ')}: there is no Ambassador in it`], warnings: [] }
  }
  const problems: string[] = []
  const warnings: string[] = []
  const configs: ProxyConfig[] = []
  const places = new Map<string, string>()
  for (const document of ambassadors) {
    const { file, lineOf } = document
    const name = String((document.value as { metadata?: { name?: unknown } }).metadata?.name ?? 'without a name')
    const at = (field: string) => `${file}:${lineOf(field)}: Ambassador '${name}': ${field === '' ? '' : `${field}: `}`
    const base = file === '<stdin>' ? process.cwd() : dirname(resolve(file))
    const { object, locals, issues } = liftLocalRefs(document.value as object, base)
    const broken = [...issues, ...checkObject(object), ...unknownFields(object)]
    problems.push(...broken.map(({ field, message }) => at(field) + message))
    if (broken.length > 0) continue
    const lookup = standIns(services, (ref) => {
      problems.push(`${at('spec.upstreams')}${noStandIn(ref)}, use --service ${ref.name}=HOST:PORT`)
    })
    const rendered = render({ ambassador: object as Ambassador, services: lookup })
    for (const problem of rendered.problems) {
      const lines = problem.severity === 'Error' ? problems : warnings
      lines.push(`${file}:${lineOf(problem.field)}: Ambassador '${name}': ${problemText(problem)}`)
    }
    if (rendered.config === null) continue
    const config = restoreLocalRefs(rendered.config, locals)
    const clusters = JSON.stringify(config.clusters)
    if (secrets === null && /"kind":"(?:secret|configMap)"/.test(clusters)) {
      const remedy = 'use --secrets DIR, or { file: PATH } or { env: NAME } in its place'
      problems.push(`${at('spec.upstreams')}refers to a Secret or ConfigMap, ${remedy}`)
    }
    if (secrets === null && clusters.includes('"kind":"token"')) {
      const remedy = 'add file: PATH or env: NAME beside its audience, or use --secrets DIR'
      problems.push(`${at('spec.upstreams')}needs a token of a service account, which only a pod has: ${remedy}`)
    }
    const { namespace } = config.ambassador
    const { port, unix } = config.listener
    const claims: [key: string, what: string, field: string][] = [
      [`${namespace}/${name}`, `the name '${name}'`, 'metadata.name'],
      [`port ${port}`, `port ${port}`, 'spec.listen.port'],
    ]
    if (unix !== undefined) claims.push([`socket ${unix}`, `socket '${unix}'`, 'spec.listen.unix.path'])
    for (const [key, what, field] of claims) {
      const other = places.get(key)
      if (other !== undefined) problems.push(`${at(field)}${what} is that of ${other} too, change one of the two`)
      places.set(key, `the Ambassador at ${file}:${lineOf(field)}`)
    }
    configs.push(config)
  }
  return { configs, problems, warnings }
}

/** References that cannot be used. In a pod they may come later; a person who starts a program has them, or made a slip. */
export function missingRefs(configs: readonly ProxyConfig[], dirs: RefDirs): string[] {
  const tls = new TlsContexts({ read: (ref) => readRef(ref, dirs), name: refText })
  const compiler = new Compiler({ dirs, tls, discover: () => ({ start() {}, refresh() {}, failure: null, stop() {} }) })
  return configs.flatMap((config) => {
    const candidate = compiler.prepare(config)
    compiler.discard(candidate)
    return candidate.problem === null ? [] : [`Ambassador '${config.ambassador.name}': ${candidate.problem.message}`]
  })
}
