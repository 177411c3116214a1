/** The bundled sidecar with the code that V8 compiled at the build beside it, and without. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { addCodeCache } from '../../../build/code-cache.ts'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { built } from '../../helpers/built.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** Tells of the script of the program whether V8 has refused what was compiled before: null when there was nothing to refuse. */
const PROBE = `
const vm = require('node:vm')
const { Script } = vm
vm.Script = class extends Script {
  constructor(...args) {
    super(...args)
    process.stdout.write(JSON.stringify({ msg: 'script', isRefused: this.cachedDataRejected ?? null }) + '\\n')
  }
}
`

describe('the code cache of the bundled sidecar', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-code-cache-'))
  const dist = join(directory, 'dist')
  const runtime = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
  const upstream = createServer((_request, response) => response.end('from the upstream'))
  const ends: (() => unknown)[] = []
  /** The program as it was bundled. */
  let module: Buffer
  const cacheFile = () => join(dist, readdirSync(dist).find((name) => name.endsWith('.cache')) ?? 'none')

  before(async () => {
    writeFileSync(join(directory, 'probe.cjs'), PROBE)
    cpSync((await built()).plain, dist, { recursive: true, verbatimSymlinks: true })
    for (const old of ['proxy.0123456789abcdef.js', 'proxy.0123456789abcdef.cache']) writeFileSync(join(dist, old), '')
    module = readFileSync(join(dist, 'proxy.mjs'))
    await addCodeCache({ dist, runtime })
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  })
  afterEach(async () => {
    for (const end of ends.splice(0)) await end()
  })
  after(() => {
    upstream.close()
    rmSync(directory, { recursive: true })
  })

  /** Whether V8 took what was compiled, of a sidecar that serves Ambassadors from a file, which it learns to read at run time. */
  async function served(): Promise<unknown> {
    const port = await freePort()
    const file = join(directory, `${port}.yaml`)
    writeFileSync(
      file,
      `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: plain }
spec:
  protocol: HTTP
  listen: { port: ${port} }
  upstreams:
    - name: only
      endpoints: [{ host: 127.0.0.1, port: ${(upstream.address() as AddressInfo).port} }]
`,
    )
    const args = [...runtime.flags, '--require', join(directory, 'probe.cjs'), join(dist, 'proxy.mjs')]
    const proxy = await ProxyProcess.start({ ...runtime.env, AMBASSADOR_CONFIG: file }, args)
    ends.push(() => proxy.end())
    await proxy.ready()
    assert.equal(proxy.stderr, '')
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'from the upstream')
    return (await proxy.line(({ msg }) => msg === 'script'))['isRefused']
  }

  it('is taken by V8 with the flags of the image, and what is imported at run time finds the program that runs', async () => {
    assert.equal(await served(), false)
  })

  it('goes with flags under which V8 takes the modules of Node as they were compiled, too', () => {
    const count = `
      require('node:net')
      const { getCacheUsage } = require('internal/test/binding').internalBinding('builtins')
      const { compiledWithCache, compiledWithoutCache } = getCacheUsage()
      console.log(JSON.stringify({ taken: compiledWithCache.size, compiled: [...compiledWithoutCache] }))`
    const args = [...runtime.flags, '--expose-internals', '--no-warnings', '--eval', count]
    const { taken, compiled } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
    assert.deepEqual(compiled, [])
    assert.ok(taken > 10, `${taken} taken`)
  })

  it('is not missed when it is damaged, or not there', async () => {
    const whole = readFileSync(cacheFile())
    writeFileSync(cacheFile(), whole.subarray(0, 1000))
    assert.equal(await served(), true)
    rmSync(cacheFile())
    assert.equal(await served(), null)
  })

  it('is made once for the same code, and what an earlier bundle left is removed', async () => {
    const add = async () => {
      writeFileSync(join(dist, 'proxy.mjs'), module)
      await addCodeCache({ dist, runtime })
      return statSync(cacheFile())
    }
    const { ino, mtimeMs, size } = await add()
    assert.ok(size > 300_000, `${size} bytes, where the functions of the start alone have 600 kB`)
    const again = await add()
    assert.deepEqual([again.ino, again.mtimeMs], [ino, mtimeMs])
    assert.equal(readdirSync(dist).filter((name) => /^proxy\.[0-9a-f]+\.(?:js|cache)$/.test(name)).length, 2)
  })
})
