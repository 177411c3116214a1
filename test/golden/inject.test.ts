import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { dump } from 'js-yaml'
import { parseDocuments } from '../../cli/documents.ts'
import { PRODUCT_VERSION } from '../../common/names.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { equal, type Json, type JsonObject } from '../../operator/webhook/json.ts'
import { injectObject, publishedFrom, uninjectObject } from '../../operator/webhook/manifest.ts'
import { applyPatch, diff } from '../../operator/webhook/patch.ts'
import { goldenFiles, matchGolden } from '../helpers/golden.ts'
import { SETTINGS } from '../helpers/injection.ts'

// How to add a case: put a pod or a workload into test/golden/inject, name the file after what it is about, and let it ask for
// Ambassadors of ambassadors.yaml there. UPDATE_GOLDEN=1 writes the injected object beside it, with the warnings at its head.

const FOLDER = 'inject'
const AMBASSADORS = 'ambassadors'

const all = goldenFiles(FOLDER, '.yaml')
const objectOf = (text: string, path: string): JsonObject => parseDocuments(text, path)[0]?.value as JsonObject
const ambassadors = new Map(
  parseDocuments(all.find(({ name }) => name === AMBASSADORS)?.text ?? '', AMBASSADORS)
    .map(({ value }) => publishedFrom(value as Ambassador))
    // The hash of a config is the affair of the golden files of render.
    .map((each) => ({ ...each, config: each.config && { ...each.config, hash: '0123456789abcdef' } }))
    .map((each) => [each.name, each]),
)
const inject = (object: JsonObject) => injectObject(object, { namespace: 'shop', ambassadors, settings: SETTINGS })

describe('injecting', () => {
  const cases = all.filter(({ name }) => name !== AMBASSADORS && !name.endsWith('.injected'))

  for (const { name, path, text } of cases) {
    it(`gives the expected object for ${name}`, () => {
      const object = objectOf(text, path)
      const before = JSON.stringify(object)
      const result = inject(object)
      assert.ok(result.kind === 'injected', JSON.stringify(result))
      const head = result.warnings.map((warning) => `# warning: ${warning}\n`).join('')
      const yaml = dump(result.object, { lineWidth: -1, noRefs: true })
      matchGolden(`${FOLDER}/${name}.injected.yaml`, head + yaml.replaceAll(`"version":"${PRODUCT_VERSION}"`, '"version":"VERSION"'))
      assert.equal(JSON.stringify(object), before, 'the object itself was changed')

      const again = inject(result.object)
      assert.ok(again.kind === 'injected')
      assert.deepEqual(diff(result.object, again.object), [], 'a second injection changes something')

      const bare = uninjectObject(result.object)
      assert.deepEqual(diff(bare, object as Json), [], 'uninject does not give back what was there')
      assert.ok(equal(applyPatch(object, diff(object, result.object)), result.object), 'the patch does not give it')
    })
  }

  it('has every kind of workload among its cases', () => {
    const kinds = new Set(cases.map(({ path, text }) => objectOf(text, path)['kind']))
    for (const kind of ['Pod', 'Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job', 'CronJob']) {
      assert.ok(kinds.has(kind), kind)
    }
    assert.ok(cases.length >= 30)
  })
})
