/** What is in a bundle, and what is refused. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { bundle, packageOf } from '../../../build/bundle.ts'

const REPOSITORY = join(import.meta.dirname, '../../..')

/** Apart from where it is imported, so that nobody takes that for an import of this file. */
const HEAVY = './heavy.ts'

describe('bundle', () => {
  let root: string
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'ambassador-bundle-'))
    symlinkSync(join(REPOSITORY, 'node_modules'), join(root, 'node_modules'))
  })
  afterEach(() => rmSync(root, { recursive: true }))

  const write = (file: string, text: string): void => {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    writeFileSync(join(root, file), text)
  }
  const build = () => bundle({ root, dist: join(root, 'dist'), allowMissing: true })

  it('runs on its own, with packages of either kind inside and their licences beside it', async () => {
    write(
      'cli/image.ts',
      "import { load } from 'js-yaml'\nimport { Counter } from 'prom-client'\nimport { z } from 'zod'\n",
    )
    write(
      'cli/image.ts',
      `${readFileSync(join(root, 'cli/image.ts'), 'utf8')}
      class OddError extends Error {}
      console.log(JSON.stringify([load('a: 1'), Counter.name, z.string().parse('x'), OddError.name]))`,
    )
    const [bundled] = await build()
    assert.equal(bundled?.file, 'proxy.mjs')
    const alone = mkdtempSync(join(tmpdir(), 'ambassador-alone-'))
    try {
      writeFileSync(join(alone, 'proxy.mjs'), readFileSync(join(root, 'dist/proxy.mjs')))
      const said = execFileSync(process.execPath, [join(alone, 'proxy.mjs')], { encoding: 'utf8' })
      assert.deepEqual(JSON.parse(said), [{ a: 1 }, 'Counter', 'x', 'OddError'])
    } finally {
      rmSync(alone, { recursive: true })
    }
    const licences = readFileSync(join(root, 'dist/LICENSES.txt'), 'utf8')
    for (const name of ['js-yaml', 'prom-client', 'zod']) assert.match(licences, new RegExp(`^${name} \\d`, 'm'))
  })

  it('evaluates a module that is imported at run time only when it is reached', async () => {
    write('cli/heavy.ts', "console.log('heavy')\nexport const weight = 7\n")
    write('cli/image.ts', `console.log('light')\nif (process.argv[2]) console.log((await import('${HEAVY}')).weight)\n`)
    await build()
    const run = (...args: string[]) =>
      execFileSync(process.execPath, [join(root, 'dist/proxy.mjs'), ...args], { encoding: 'utf8' })
    assert.equal(run(), 'light\n')
    assert.equal(run('yes'), 'light\nheavy\n7\n')
  })

  it("takes of Node's own modules what is used, and not all that their getters would load", async () => {
    write(
      'cli/image.ts',
      `import http, { createServer as create } from 'node:http'
      import * as path from 'node:path'
      const isLoaded = process.moduleLoadList.some((name) => name.includes('undici'))
      console.log(JSON.stringify([create === http.createServer, path.join('a', 'b'), isLoaded]))`,
    )
    await build()
    const said = execFileSync(process.execPath, [join(root, 'dist/proxy.mjs')], { encoding: 'utf8' })
    assert.deepEqual(JSON.parse(said), [true, 'a/b', false])
  })

  it('starts the entry alone, and none of the modules that can also be started', async () => {
    write('cli/image.ts', "export const word = 'proxy'\nif (import.meta.main) console.log('proxy started')\n")
    write('cli/main.ts', "import { word } from './image.ts'\nif (import.meta.main) console.log(`cli knows ${word}`)\n")
    await build()
    const run = (file: string) => execFileSync(process.execPath, [join(root, 'dist', file)], { encoding: 'utf8' })
    assert.equal(run('ambassador.mjs'), 'cli knows proxy\n')
    assert.equal(run('proxy.mjs'), 'proxy started\n')
  })

  it('keeps what is imported at run time in a file of its own, and removes that of an earlier bundle', async () => {
    const chunks = () => readdirSync(join(root, 'dist')).filter((name) => name.startsWith('proxy-'))
    write('cli/heavy.ts', "export const weight = 'heavy'\n")
    write('cli/image.ts', `if (process.argv[2]) console.log((await import('${HEAVY}')).weight)\n`)
    await build()
    assert.equal(chunks().length, 1)
    assert.doesNotMatch(readFileSync(join(root, 'dist/proxy.mjs'), 'utf8'), /weight='heavy'|"heavy"|`heavy`/)
    write('cli/image.ts', 'console.log(1)\n')
    await build()
    assert.deepEqual(chunks(), [])
  })

  it('makes the command-line program a command in an image without a shell', async () => {
    write('cli/main.ts', "if (import.meta.main) console.log('started')\n")
    await build()
    assert.equal(readlinkSync(join(root, 'dist/bin/ambassador')), '/app/ambassador.mjs')
    const file = join(root, 'dist/ambassador.mjs')
    assert.equal(statSync(file).mode & 0o111, 0o111)
    assert.match(readFileSync(file, 'utf8'), /^#!\/usr\/local\/bin\/node\n/)
    symlinkSync(file, join(root, 'ambassador'))
    assert.equal(execFileSync(process.execPath, [join(root, 'ambassador')], { encoding: 'utf8' }), 'started\n')
  })

  it('refuses an entry that does not exist', async () => {
    write('cli/image.ts', '')
    await assert.rejects(bundle({ root, dist: join(root, 'dist') }), {
      message: `bundle: entry 'operator/main.ts', 'cli/main.ts' does not exist in ${root}, use --allow-missing to leave it out`,
    })
  })

  it('refuses an import that cannot be found', async () => {
    write('cli/image.ts', "import { nothing } from 'no-such-package'\nconsole.log(nothing)\n")
    await assert.rejects(build(), /no-such-package/)
  })
})

describe('packageOf', () => {
  it('is the folder of the innermost package', () => {
    assert.equal(packageOf('/a/node_modules/@b/c/d/e.js'), '/a/node_modules/@b/c')
    assert.equal(packageOf('/a/node_modules/b/node_modules/c/d.js'), '/a/node_modules/b/node_modules/c')
    assert.equal(packageOf('/a/proxy/main.ts'), '')
  })
})
