/** How a go.mod is read and written. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isNewEnough, readGoMod, renderGoMod } from '../../cluster/go-modules.ts'
import { PROGRAMS } from '../../cluster/versions.ts'

const KUBERNETES = `// a comment

module k8s.io/kubernetes

go 1.24.0 // with a comment

godebug default=go1.24

require (
	k8s.io/api v0.0.0
	github.com/other/thing v1.2.3
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/client-go => ./staging/src/k8s.io/client-go
	github.com/other/thing => github.com/fork/thing v1.2.4
)
`

describe('readGoMod', () => {
  it('finds the version of Go, the godebug settings and the modules that are folders of the same repository', () => {
    assert.deepEqual(readGoMod(KUBERNETES), {
      go: '1.24.0',
      godebug: ['godebug default=go1.24'],
      staging: ['k8s.io/api', 'k8s.io/client-go'],
    })
  })

  it('reads directives that are not in a block, with and without a version on the left', () => {
    const text = 'go 1.25\nreplace example.com/a => ../a\nreplace example.com/b v1.0.0 => ../b\n'
    assert.deepEqual(readGoMod(text).staging, ['example.com/a', 'example.com/b'])
  })

  it('refuses a go.mod without a version of Go', () => {
    assert.throws(() => readGoMod('module x\n'), { message: "go.mod: no line 'go VERSION'" })
  })
})

describe('renderGoMod', () => {
  it('requires the module and names a published version for each staging folder', () => {
    const text = renderGoMod(PROGRAMS.kubernetes, readGoMod(KUBERNETES))
    assert.deepEqual(text.split('\n'), [
      'module ambassador.test/kubernetes',
      'go 1.24.0',
      'godebug default=go1.24',
      'require k8s.io/kubernetes v1.34.4',
      'replace k8s.io/api => k8s.io/api v0.34.4',
      'replace k8s.io/client-go => k8s.io/client-go v0.34.4',
      '',
    ])
  })

  it('leaves to the other modules the versions that they ask for', () => {
    const facts = { go: '1.24', godebug: [], staging: ['go.etcd.io/etcd/api/v3'] }
    assert.doesNotMatch(renderGoMod(PROGRAMS.etcd, facts), /replace/)
  })
})

describe('isNewEnough', () => {
  for (const [version, expected] of [
    ['go version go1.26.8 linux/amd64', true],
    ['go version go1.21.0 linux/arm64', true],
    ['go version go1.19.8 linux/amd64', false],
    ['go version go2.0 linux/amd64', true],
    ['gccgo something', false],
  ] as const) {
    it(`${expected ? 'accepts' : 'refuses'} '${version}'`, () => assert.equal(isNewEnough(version), expected))
  }
})
