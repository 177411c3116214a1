/** Volumes of Secrets and ConfigMaps, written as kubelet's atomic writer does: a new directory, then one rename of `..data`. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Env } from '../../common/names.ts'

let versions = 0

/** Replaces the content of the volume at `directory` in one step, and creates it (empty for {}) when it is not there. */
export function writeVolume(directory: string, data: Readonly<Record<string, string | Buffer>>): void {
  mkdirSync(directory, { recursive: true })
  const link = join(directory, '..data')
  const before = existsSync(link) ? readlinkSync(link) : null
  // kubelet names it after the time; a counter keeps two versions of one millisecond apart.
  const version = `..2026_11_21_09_00_00.${String(++versions).padStart(9, '0')}`
  mkdirSync(join(directory, version))
  for (const [key, value] of Object.entries(data)) writeFileSync(join(directory, version, key), value)
  symlinkSync(version, join(directory, '..data_tmp'))
  renameSync(join(directory, '..data_tmp'), link)
  for (const key of Object.keys(data)) {
    if (!existsSync(join(directory, key))) {
      rmSync(join(directory, key), { force: true })
      symlinkSync(join('..data', key), join(directory, key))
    }
  }
  for (const entry of readdirSync(directory)) {
    if (!entry.startsWith('..') && !Object.hasOwn(data, entry)) unlinkSync(join(directory, entry))
  }
  if (before !== null) rmSync(join(directory, before), { recursive: true })
}

/** The directories of a sidecar below one temporary directory, as Mount of common/names.ts has them. */
export class Volumes {
  readonly root = mkdtempSync(join(tmpdir(), 'ambassador-volumes-'))
  readonly configDir = join(this.root, 'config')
  readonly secretsDir = join(this.root, 'secrets')
  readonly configMapsDir = join(this.root, 'configmaps')
  readonly tokensDir = join(this.root, 'tokens')

  constructor() {
    for (const directory of [this.configDir, this.secretsDir, this.configMapsDir, this.tokensDir]) mkdirSync(directory)
  }

  get dirs() {
    return { secrets: this.secretsDir, configMaps: this.configMapsDir, tokens: this.tokensDir }
  }

  /** The environment of a sidecar with these volumes. @param ambassadors their names, with commas between */
  env(ambassadors: string): Record<string, string> {
    return {
      [Env.ambassadors]: ambassadors,
      [Env.configDir]: this.configDir,
      [Env.secretsDir]: this.secretsDir,
      [Env.configMapsDir]: this.configMapsDir,
      [Env.tokensDir]: this.tokensDir,
    }
  }

  /** A token of the service account, by the name that tokenName() gives it. */
  token(name: string, text: string): void {
    writeVolume(join(this.tokensDir, name), { token: text })
  }

  secret(name: string, data: Readonly<Record<string, string | Buffer>>): void {
    writeVolume(join(this.secretsDir, name), data)
  }

  configMap(name: string, data: Readonly<Record<string, string | Buffer>>): void {
    writeVolume(join(this.configMapsDir, name), data)
  }

  /** Publishes the config of an Ambassador; a string is written as it is. */
  config(name: string, config: unknown): void {
    const text = typeof config === 'string' ? config : JSON.stringify(config)
    writeVolume(join(this.configDir, name), { 'config.json': text })
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true })
  }
}
