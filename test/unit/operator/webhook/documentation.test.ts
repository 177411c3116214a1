import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Annotation, LOG_LEVELS, NATIVE_SIDECAR, READINESS } from '../../../../common/names.ts'
import { DENIALS, SKIPS } from '../../../../operator/webhook/reasons.ts'
import { DEFAULT_SETTINGS } from '../../../../operator/webhook/settings.ts'

const text = readFileSync(join(import.meta.dirname, '../../../../docs/annotations.md'), 'utf8')

describe('docs/annotations.md', () => {
  it('has every annotation and no other', () => {
    const known = new Set(Object.values(Annotation) as string[])
    for (const key of known) assert.ok(text.includes(`\`${key}`), key)
    for (const [key] of text.matchAll(/ambassador\.dev\/[a-z-]+/g)) {
      assert.ok(known.has(key) || key === 'ambassador.dev/injected', key)
    }
  })

  it('has every reason and no other', () => {
    const listed = [...text.matchAll(/^\| `([A-Z]\w+)` \|/gm)].map((match) => match[1])
    assert.deepEqual(listed, [...Object.keys(DENIALS), ...Object.keys(SKIPS)])
  })

  it('has the allowed words and the defaults of the settings', () => {
    const row = (key: string): string => text.split('\n').find((line) => line.startsWith(`| \`${key}\``)) ?? ''
    const words = (list: readonly string[]): string => list.map((word) => `\`${word}\``).join(', ')
    assert.ok(row(Annotation.logLevel).includes(words(LOG_LEVELS)))
    assert.ok(row(Annotation.nativeSidecar).includes(words(NATIVE_SIDECAR)))
    assert.ok(row(Annotation.readiness).includes(words(READINESS)))
    const { cpuRequest, memoryRequest, memoryLimit } = DEFAULT_SETTINGS.resources
    assert.ok(row(Annotation.proxyCpuRequest).includes(`\`${cpuRequest}\``))
    assert.ok(row(Annotation.proxyMemoryRequest).includes(`\`${memoryRequest}\``))
    assert.ok(row(Annotation.proxyMemoryLimit).includes(`\`${memoryLimit}\``))
    assert.ok(row(Annotation.drainSeconds).includes(String(DEFAULT_SETTINGS.drainSeconds)))
  })
})
