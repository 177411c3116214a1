import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { dump } from 'js-yaml'
import { parseDocuments } from '../../cli/documents.ts'
import { parseProxyConfig } from '../../common/proxy-config.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { references } from '../../operator/render/references.ts'
import { render } from '../../operator/render/render.ts'
import { goldenFiles, matchGolden } from '../helpers/golden.ts'

// How to add a case: write NAME.in.yaml into test/golden/render, run this with UPDATE_GOLDEN=1 and read the NAME.out.yaml.

describe('render', () => {
  for (const { name, text } of goldenFiles('render', '.in.yaml')) {
    const ambassador = parseDocuments(text, name)[0]!.value as Ambassador

    it(`translates ${name}`, () => {
      const { config, problems } = render({ ambassador })
      const shown = config && {
        ...config,
        retry: config.retry && { ...config.retry, statuses: ranges(config.retry.statuses) },
      }
      matchGolden(
        `render/${name}.out.yaml`,
        dump({ config: shown, problems, references: references(ambassador.spec) }, { lineWidth: 120, noRefs: true }),
      )
    })

    it(`gives a config that a sidecar reads, or says why not, for ${name}`, () => {
      const { config, problems } = render({ ambassador })
      if (config) assert.deepEqual(parseProxyConfig(JSON.parse(JSON.stringify(config))), config)
      assert.equal(
        problems.some(({ severity }) => severity === 'Error'),
        config === null,
      )
    })
  }
})

/** `500-510, 429`: so that a golden file does not list a hundred statuses. */
function ranges(statuses: readonly number[]): string {
  const parts: [number, number][] = []
  for (const status of statuses) {
    const last = parts.at(-1)
    if (last && last[1] === status - 1) last[1] = status
    else parts.push([status, status])
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ')
}
