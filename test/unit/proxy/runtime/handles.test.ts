import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { unfitNode } from '../../../../proxy/runtime/handles.ts'

const FILE = join(import.meta.dirname, '../../../../proxy/runtime/handles.ts')

/** What a program that needs the handles says when it cannot start. */
function refusal(args: readonly string[]): string {
  const { status, stderr } = spawnSync(process.execPath, [...args, FILE], {
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  assert.equal(status, 1, stderr)
  return stderr
}

describe('unfitNode', () => {
  it('takes the release that it was made for, and later ones of the same major version', () => {
    for (const version of ['26.10.0', '26.10.3', '26.11.0', '26.100.0', process.versions.node]) {
      assert.equal(unfitNode(version), null, version)
    }
  })

  it('takes no older and no newer one, and says which is needed', () => {
    for (const version of ['20.20.2', '24.10.0', '25.99.0', '26.0.0', '26.9.0', '27.0.0', '27.10.0']) {
      assert.equal(
        unfitNode(version),
        `Node ${version} cannot run a sidecar, which reaches below its sockets: use 26.10 or a later 26, as the image and 'npm ci' have it`,
      )
    }
  })
})

describe('what stands on the handles', () => {
  it('does not start on another version of Node, where the first write would end the process', () => {
    const older = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '26.9.0' } })"
    assert.match(refusal(['--import', `data:text/javascript,${encodeURIComponent(older)}`]), /^Error: Node 26\.9\.0 /m)
  })

  it('does not start where Node refuses the handles, and says with which option', () => {
    assert.match(refusal(['--permission', '--allow-fs-read=*']), /^Error: Node does not give out .* --permission /m)
  })
})
