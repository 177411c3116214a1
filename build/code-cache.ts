/** Spares a bundled program the compilation of its code at each start: what V8 has made of it goes into the image beside it. */

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { ImageRuntime } from './image-runtime.ts'

export interface CodeCacheOptions {
  /** Folder of the bundle. */
  readonly dist: string
  /** How the image starts Node: V8 takes compiled code only with the flags that it was made with. */
  readonly runtime: ImageRuntime
}

/** What V8 compiles in the longest start, on a machine that is emulated. */
const DEADLINE_MS = 120_000

/**
 * Splits `proxy.mjs` of a bundle: what stands in it goes to a script beside it, with what V8 has compiled of that by the time the
 * sidecar listens, and in its place comes a loader of a few lines. Without the compiled code, or when V8 refuses it (another
 * version, other flags), the script is compiled as ever. Both files are named by what they depend on, so the same code is compiled
 * once. Throws when the bundle looks otherwise than expected, or the sidecar does not start.
 */
export const addCodeCache = async ({ dist, runtime }: CodeCacheOptions): Promise<void> => {
  const entry = join(dist, 'proxy.mjs')
  const { chunks, names, script } = asScript(readFileSync(entry, 'utf8'))
  const key = createHash('sha256')
    .update([process.version, process.arch, ...runtime.flags, script].join('\n'))
    .digest('hex')
    .slice(0, 16)
  const [code, cache] = [`proxy.${key}.js`, `proxy.${key}.cache`]
  writeFileSync(join(dist, code), script)
  writeFileSync(`${entry}.new`, loader(code, cache, chunks, names))
  chmodSync(`${entry}.new`, 0o755)
  renameSync(`${entry}.new`, entry)
  if (!existsSync(join(dist, cache))) await compile(entry, join(dist, cache), runtime)
  for (const name of readdirSync(dist)) {
    if (/^proxy\.[0-9a-f]{16}\.(?:js|cache)$/.test(name) && name !== code && name !== cache) rmSync(join(dist, name))
  }
}

const FIRST_LINE = /^#!.*\n/
const IMPORT = /^import\s*\{([^}]*)\}\s*from\s*("\.\/[^"]+");\s*/
/** Of a module at run time. A word or a dot before it is another thing's. */
const IMPORT_CALL = /(?<![\w$.])import\(/g
const EXPORT = /export\s*\{([^}]*)\};?\s*$/

/**
 * Pure: a module of the bundler's as a script, whose value is a function from the modules that it imports, and from a function that
 * imports one at run time, to what it exports. Code that V8 keeps must be a script: for modules Node has no way to hand it in.
 */
export const asScript = (
  module: string,
): { readonly chunks: readonly string[]; readonly names: readonly string[]; readonly script: string } => {
  const chunks: string[] = []
  let imported = ''
  let body = module.replace(FIRST_LINE, '')
  for (let found = IMPORT.exec(body); found !== null; found = IMPORT.exec(body)) {
    imported += `const{${found[1]!.replaceAll(' as ', ':')}}=chunks[${chunks.length}];`
    chunks.push(found[2]!)
    body = body.slice(found[0].length)
  }
  const exported = EXPORT.exec(body)
  if (exported !== null) body = body.slice(0, exported.index)
  const pairs = (exported?.[1] ?? '')
    .split(',')
    .filter((part) => part.trim() !== '')
    .map((part) => part.trim().split(' as ') as [string, string?])
  if (/\bimport\.meta\b|^(?:import|export)[\s{*]/m.test(body))
    throw new Error('code cache: the bundle has an import, an export or import.meta in the middle, adapt asScript()')
  body = body.replace(IMPORT_CALL, 'importModule(')
  const made = pairs.map(([local, name = local]) => `${name}:${local}`).join()
  // One byte for a character is how V8 keeps it, and how the loader reads it.
  if (/[^\0-\x7f]/.test(body)) throw new Error('code cache: the bundle has characters outside of ASCII')
  return {
    chunks,
    names: pairs.map(([local, name = local]) => name),
    script: `(function(chunks,importModule){"use strict";${imported}${body}\nreturn{${made}}})`,
  }
}

const loader = (code: string, cache: string, chunks: readonly string[], names: readonly string[]): string =>
  `#!/usr/local/bin/node
${chunks.map((chunk, at) => `import * as chunk${at} from ${chunk};\n`).join('')}const {readFileSync}=process.getBuiltinModule("node:fs"),{Script}=process.getBuiltinModule("node:vm");
const filename=import.meta.dirname+"/${code}";
let cachedData;
try{cachedData=readFileSync(import.meta.dirname+"/${cache}")}catch{}
const script=new Script(readFileSync(filename,"latin1"),{filename,cachedData});
cachedData=undefined;
export const {${names.join()}}=script.runInThisContext()([${chunks.map((_, at) => `chunk${at}`).join()}],(name)=>import(name));
`

/** Loaded before the program: keeps the first script that is compiled, and writes what V8 has of it when it is told to. */
const HOOK = `// A second after its start the sidecar would set flags of V8 and throw compiled code away.
require('node:v8').setFlagsFromString = () => {}
const vm = require('node:vm')
vm.runInNewContext = () => undefined
const { Script } = vm
let first
vm.Script = class extends Script {
  constructor(...args) {
    super(...args)
    first ??= this
  }
}
process.on('SIGUSR2', () => {
  require('node:fs').writeFileSync(process.env.CODE_CACHE, first.createCachedData())
  process.exit()
})
`

/** Starts a sidecar for plain HTTP and has it write down what was compiled until it serves. */
const compile = async (entry: string, cache: string, { flags, env }: ImageRuntime): Promise<void> => {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-code-cache-'))
  try {
    writeFileSync(join(directory, 'hook.cjs'), HOOK)
    mkdirSync(join(directory, 'config/plain'), { recursive: true })
    const [port, telemetry, admin] = [await freePort(), await freePort(), await freePort()]
    writeFileSync(join(directory, 'config/plain/config.json'), JSON.stringify(plainHttp(port)))
    const child = spawn(process.execPath, [...flags, '--require', join(directory, 'hook.cjs'), entry], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...env,
        CODE_CACHE: `${cache}.new`,
        AMBASSADOR_NAMES: 'plain',
        AMBASSADOR_CONFIG_DIR: join(directory, 'config'),
        AMBASSADOR_TELEMETRY_PORT: String(telemetry),
        AMBASSADOR_ADMIN_PORT: String(admin),
        POD_NAMESPACE: 'build',
      },
    })
    const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
    let said = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        const isServing = said.includes(SERVES)
        said += text
        if (!isServing && said.includes(SERVES)) child.kill('SIGUSR2')
      })
    const [status] = await once(child, 'close')
    clearTimeout(timer)
    if (status !== 0 || !existsSync(`${cache}.new`))
      throw new Error(`code cache: ${basename(entry)} does not start, correct what it says:\n${said}`)
    renameSync(`${cache}.new`, cache)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** In the log of a sidecar whose listeners are open. */
const SERVES = '"msg":"config in force"'

const plainHttp = (port: number): object => ({
  version: 1,
  ambassador: { namespace: 'build', name: 'plain', generation: 1 },
  hash: '0',
  protocol: 'HTTP',
  listener: { port },
  clusters: [
    {
      name: 'upstream',
      discovery: { kind: 'endpoints', endpoints: [{ host: '127.0.0.1', port: 9, weight: 1, priority: 0 }] },
      tls: null,
      auth: null,
      circuitBreaker: {
        consecutiveFailures: 5,
        failureRate: { ratio: 0.5, minimumRequests: 20, windowMs: 10_000 },
        openMs: 30_000,
        maxOpenMs: 300_000,
        halfOpenRequests: 1,
      },
      limits: { maxConnections: 100, maxPendingRequests: 50, maxConcurrentRetries: 3 },
    },
  ],
  retry: {
    maxRetries: 3,
    on: ['ConnectFailure', 'Reset', 'Timeout'],
    statuses: [429, 502, 503, 504],
    perTryTimeoutMs: 5_000,
    backoff: { initialMs: 100, maxMs: 10_000 },
    budget: { ratio: 0.2, minPerSecond: 10 },
    maxBufferedBodyBytes: 65_536,
    methods: 'Idempotent',
  },
  timeouts: { connectMs: 5_000, requestMs: 10_000, idleMs: 60_000 },
  rateLimit: null,
  routes: [],
  accessLog: { mode: 'Errors', sample: 0 },
})

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}
