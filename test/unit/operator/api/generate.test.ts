import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { load } from 'js-yaml'
import { CONDITIONS } from '../../../../operator/api/conditions.ts'
import { crd } from '../../../../operator/api/crd.ts'
import { generated, outdated } from '../../../../operator/api/generate.ts'

const files = generated()
const textOf = (path: string) => files.get(path)!

describe('the generated files', () => {
  it('say that they are generated', () => {
    for (const [path, text] of files)
      assert.match(
        text.slice(0, 300),
        /Generated from (?:operator\/api|common\/proxy-config\.ts) .* Do not edit\./,
        path,
      )
  })

  it('hold the definition as it is', () => {
    assert.deepEqual(load(textOf('crds/ambassadors.ambassador.dev.yaml')), JSON.parse(JSON.stringify(crd())))
  })

  it('hold the same definition in the chart, kept at an uninstall and off by a value', () => {
    const template = textOf('charts/ambassador/templates/crd.yaml')
    const [head, ...lines] = template.trimEnd().split('\n').slice(1)
    assert.equal(head, '{{- if .Values.crds.enabled }}')
    assert.equal(lines.pop(), '{{- end }}')
    assert.ok(!lines.some((line) => line.includes('{{')), 'Helm would read a part of the definition as a template')
    const { metadata, ...rest } = load(lines.join('\n')) as { metadata: { annotations: object } }
    assert.deepEqual(metadata.annotations, { 'helm.sh/resource-policy': 'keep' })
    assert.deepEqual(rest, JSON.parse(JSON.stringify({ ...crd(), metadata: undefined })))
  })

  it('tell every reason of every condition', () => {
    const page = textOf('docs/reference/ambassador.md')
    for (const [type, { reasons }] of Object.entries(CONDITIONS)) {
      assert.ok(page.includes(`### ${type}\n`), type)
      for (const [reason, { text }] of Object.entries(reasons))
        assert.ok(page.includes(`| \`${reason}\``) && page.includes(text), reason)
    }
  })

  it('refuse unknown fields in editors, and only there', () => {
    const editor = JSON.parse(textOf('docs/reference/ambassador.schema.json'))
    assert.equal(editor.properties.spec.additionalProperties, false)
    assert.equal(editor.properties.spec.properties.listen.additionalProperties, false)
    assert.ok(!textOf('crds/ambassadors.ambassador.dev.yaml').includes('additionalProperties'))
  })

  it('are found out of date when one differs or is missing', () => {
    const root = mkdtempSync(join(tmpdir(), 'generated-'))
    try {
      const paths = [...files.keys()]
      for (const path of paths.slice(1)) {
        mkdirSync(dirname(join(root, path)), { recursive: true })
        writeFileSync(join(root, path), textOf(path) + (path === paths[2] ? '\n' : ''))
      }
      assert.deepEqual(outdated(root), [paths[0], paths[2]])
    } finally {
      rmSync(root, { recursive: true })
    }
  })
})
