/** That `npm ci` can work from package-lock.json. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { missingEntries, platformPackage } from '../../../build/lock-file.ts'

describe('package-lock.json', () => {
  it('has an entry for every optional dependency, or npm ci refuses it (remedy: node build/lock-file.ts)', () => {
    const file = join(import.meta.dirname, '../../../package-lock.json')
    assert.deepEqual(Object.keys(missingEntries(JSON.parse(readFileSync(file, 'utf8')))), [])
  })
})

describe('missingEntries', () => {
  it('finds a dependency that has no entry, also below another package', () => {
    const packages = {
      '': {},
      'node_modules/tool': {
        dev: true,
        optionalDependencies: { '@tool/linux-x64': '1.0.0', 'tool-darwin-arm64': '1.0.0' },
      },
      'node_modules/tool/node_modules/@tool/linux-x64': { version: '1.0.0' },
    }
    assert.deepEqual(missingEntries({ packages }), {
      'node_modules/tool-darwin-arm64': { version: '1.0.0', cpu: ['arm64'], dev: true, optional: true, os: ['darwin'] },
    })
  })
})

describe('platformPackage', () => {
  for (const [name, os, cpu, libc] of [
    ['@biomejs/cli-linux-x64-musl', ['linux'], ['x64'], ['musl']],
    ['@rolldown/binding-linux-arm-gnueabihf', ['linux'], ['arm'], ['glibc']],
    ['@rolldown/binding-android-arm-eabi', ['android'], ['arm'], undefined],
    ['@rolldown/binding-win32-arm64-msvc', ['win32'], ['arm64'], undefined],
    ['@rolldown/binding-wasm32-wasi', undefined, ['wasm32'], undefined],
  ] as const) {
    it(`reads the platform of ${name}`, () => {
      const entry = platformPackage(name, '1.2.3', undefined)
      assert.deepEqual([entry.os, entry.cpu, entry.libc], [os, cpu, libc])
    })
  }

  it('refuses what it would have to guess', () => {
    assert.throws(
      () => platformPackage('fsevents', '1.2.3', undefined),
      /^Error: package 'fsevents': '1.2.3' is not for one/,
    )
    assert.throws(() => platformPackage('a-linux-x64', '^1.2.3', undefined), /cannot be completed/)
  })
})
