/** The vendors' libraries in the bundled sidecar: files of their own, read by whoever needs them and by nobody else. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { bundle } from '../../../build/bundle.ts'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { Env } from '../../../common/names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** Tells the test, in a line of the log for each, which files Node reads as modules. */
const HOOK = `
const { registerHooks } = require('node:module')
registerHooks({
  load(url, context, next) {
    process.stdout.write(JSON.stringify({ msg: 'module', url }) + '\\n')
    return next(url, context)
  },
})
`

describe('the bundled sidecar', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-vendors-'))
  const ends: (() => unknown)[] = []

  before(async () => {
    await bundle({ root: ROOT, dist: join(directory, 'dist') })
    writeFileSync(join(directory, 'hook.cjs'), HOOK)
  })
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end()
  })
  after(() => rmSync(directory, { recursive: true, force: true }))

  /** Runs it with this auth, and sends one request through it. */
  async function through(auth: object | undefined, env: Readonly<Record<string, string>> = {}) {
    const upstream = await scriptedUpstream(ends, (request) => ok(request.field('authorization') ?? 'none'))
    const port = await freePort()
    const live = { name: 'live', endpoints: [{ host: '127.0.0.1', port: upstream.port }], ...(auth && { auth }) }
    const spec = { protocol: 'HTTP', listen: { port }, upstreams: [live] }
    const { config } = render({ ambassador: { metadata: { name: 'payments' }, spec } as unknown as Ambassador })
    const configs = mkdtempSync(join(directory, 'config-'))
    mkdirSync(join(configs, 'payments'))
    writeFileSync(join(configs, 'payments/config.json'), JSON.stringify(config))
    const { flags, env: ofImage } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
    const proxy = await ProxyProcess.start(
      { ...ofImage, ...env, [Env.ambassadors]: 'payments', [Env.configDir]: configs },
      [...flags, '--require', join(directory, 'hook.cjs'), join(directory, 'dist/proxy.mjs')],
    )
    ends.push(() => {
      proxy.kill('SIGKILL')
      return proxy.exit
    })
    await proxy.ready()
    const answer = await fetch(`http://127.0.0.1:${port}/`)
    const modules = proxy.log.filter(({ msg }) => msg === 'module').map(({ url }) => String(url))
    return {
      status: answer.status,
      body: await answer.text(),
      files: modules
        .filter((url) => url.startsWith('file:') && url.endsWith('.mjs'))
        .map((url) => url.split('/').at(-1) ?? ''),
    }
  }

  /** Files of the bundle that hold this text. */
  const holding = (text: string): string[] =>
    readdirSync(join(directory, 'dist')).filter(
      (name) => name.startsWith('proxy') && readFileSync(join(directory, 'dist', name), 'utf8').includes(text),
    )

  it('reads nothing of a vendor when no config asks for it', async () => {
    const vendors = holding('/computeMetadata/v1')
    assert.ok(vendors.length > 0, 'the library is not in the bundle')
    const { status, files } = await through(undefined)
    assert.equal(status, 200)
    assert.deepEqual(
      files.filter((name) => name !== 'proxy.mjs' && !/^proxy-rolldown-runtime-/.test(name)),
      [],
    )
  })

  it("reads Google's library and gets a token by it when a config asks for one", async () => {
    const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
    const token = `${encode({ alg: 'none' })}.${encode({ exp: Math.floor(Date.now() / 1000) + 3600 })}.c2lnbmVk`
    // An imitation of the metadata server.
    const metadata = await scriptedUpstream(ends, () => ok(token, 'Metadata-Flavor: Google'))
    const env = { GCE_METADATA_HOST: `127.0.0.1:${metadata.port}`, CLOUDSDK_CONFIG: '/nonexistent' }
    const { status, body, files } = await through({ gcpIdToken: { audience: 'https://a.example/' } }, env)
    assert.deepEqual([status, body], [200, `Bearer ${token}`])
    for (const vendor of holding('/computeMetadata/v1')) assert.ok(files.includes(vendor), vendor)
  })
})
