/** Reads the config of one Ambassador from where it is kept: a mounted ConfigMap, a file, or memory. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { configHash } from '../../common/config-hash.ts'
import type { LoadFailure } from '../../common/configz.ts'
import { HostList } from '../../common/host-list.ts'
import { CONFIG_KEY } from '../../common/names.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'
import { checkTracing } from '../tracing/check.ts'
import { parseConfig } from './parse.ts'
import { checkRoutes } from './routes.ts'

/** What a source held when it was read. */
export type ConfigRead =
  | { readonly ok: true; readonly config: ProxyConfig }
  | {
      readonly ok: false
      readonly reason: Extract<LoadFailure, 'Unreadable' | 'Invalid'>
      /** Names the file, what is wrong and the remedy. */
      readonly message: string
      /** Of what was read, as far as it could be told. */
      readonly hash: string | null
      readonly generation: number | null
    }

/** Where the config of one Ambassador is kept. */
export interface ConfigSource {
  readonly namespace: string
  readonly name: string
  /** Directories and files to watch. */
  readonly paths: readonly string[]
  read(): ConfigRead
}

/** `<directory>/<name>/config.json`, as the ConfigMap of an Ambassador is mounted. */
export function mountedSource(directory: string, namespace: string, name: string): ConfigSource {
  const path = join(directory, name)
  return {
    namespace,
    name,
    paths: [path],
    read: () => readConfigFile(join(path, CONFIG_KEY), name),
  }
}

/**
 * One ProxyConfig in a file of any name. Whoever edits it by hand leaves the hash alone, so it is computed. What it says of its Ambassador is read at once, so that reports have a
 * name.
 */
export function fileSource(path: string): ConfigSource {
  const first = readConfigFile(path, null)
  const { namespace, name } = first.ok ? first.config.ambassador : { namespace: '', name: 'default' }
  const read = (): ConfigRead => {
    const found = readConfigFile(path, first.ok ? name : null)
    return found.ok ? { ok: true, config: { ...found.config, hash: configHash(found.config) } } : found
  }
  return { namespace, name, paths: [path], read }
}

/** A config that is in memory already and was checked by whoever made it. */
export function fixedSource(config: ProxyConfig): ConfigSource {
  const { namespace, name } = config.ambassador
  return { namespace, name, paths: [], read: () => ({ ok: true, config }) }
}

function readConfigFile(path: string, expectedName: string | null): ConfigRead {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const message =
      code === 'ENOENT' || code === 'ENOTDIR'
        ? `config file '${path}' does not exist, wait for the operator or create it`
        : `config file '${path}' cannot be read (${code}), make it readable`
    return { ok: false, reason: 'Unreadable', message, hash: null, generation: null }
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return invalid(null, `config file '${path}' is not JSON: ${(error as Error).message}${hint(text)}`)
  }
  try {
    const config = parseConfig(value)
    checkRoutes(config)
    checkTracing(config)
    checkTokenUrls(config)
    checkEgress(config)
    if (expectedName !== null && config.ambassador.name !== expectedName) {
      const names = `'${config.ambassador.name}', not of '${expectedName}'`
      return invalid(value, `config file '${path}' is of Ambassador ${names}, mount the right one`)
    }
    return { ok: true, config }
  } catch (error) {
    return invalid(value, `config file '${path}': ${(error as Error).message}`)
  }
}

/** @throws {Error} that names the field, the value and the remedy */
function checkTokenUrls({ clusters }: ProxyConfig): void {
  clusters.forEach(({ auth }, index) => {
    if (auth?.kind !== 'oauth2ClientCredentials') return
    const { tokenUrl } = auth
    if (URL.canParse(tokenUrl) && /^https?:$/.test(new URL(tokenUrl).protocol)) return
    throw new Error(`config: clusters.${index}.auth.tokenUrl: '${tokenUrl}' is not a URL, use https://host/path`)
  })
}

/** @throws {Error} that quotes the entry and tells the remedy */
function checkEgress({ egress }: ProxyConfig): void {
  try {
    new HostList(egress?.allow ?? [])
  } catch (error) {
    throw new Error(`config: egress.allow: ${(error as Error).message}`)
  }
}

/** Ambassadors are written in YAML (or JSON), and that is what a person has at hand. */
const AMBASSADOR_KIND = /^\s*["']?kind["']?\s*:\s*["']?Ambassador\b/m

function hint(text: string): string {
  return AMBASSADOR_KIND.test(text) ? '; for a file with Ambassadors use `ambassador run -f FILE`' : ''
}

/** Whether a file seems to hold Ambassadors; false for one that cannot be read. */
export function holdsAmbassadors(path: string): boolean {
  try {
    return AMBASSADOR_KIND.test(readFileSync(path, 'utf8'))
  } catch {
    return false
  }
}

function invalid(value: unknown, message: string): ConfigRead {
  const { hash, ambassador } = (value ?? {}) as { hash?: unknown; ambassador?: { generation?: unknown } }
  const generation = ambassador?.generation
  return {
    ok: false,
    reason: 'Invalid',
    message,
    hash: typeof hash === 'string' ? hash : null,
    generation: typeof generation === 'number' ? generation : null,
  }
}
