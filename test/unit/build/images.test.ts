/** That the images made here and those made by `docker build` are of the same parts. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { ENTRIES } from '../../../build/bundle.ts'
import { parseManifest } from '../../../build/docker-archive.ts'
import { IMAGES } from '../../../build/images.ts'

const REPOSITORY = join(import.meta.dirname, '../../..')

describe('parseManifest', () => {
  it('reads the id of an image from both forms of docker archives', () => {
    const text = (config: string) => JSON.stringify([{ Config: config, RepoTags: ['localhost/a:dev'], Layers: [] }])
    const expected = [{ id: '1d', tags: ['localhost/a:dev'] }]
    assert.deepEqual(parseManifest(text('1d.json')), expected)
    assert.deepEqual(parseManifest(text('blobs/sha256/1d')), expected)
  })
})

for (const { name, dockerfile, packages, isProgram } of IMAGES) {
  const text = readFileSync(join(REPOSITORY, dockerfile), 'utf8')
  const last = text.slice(text.lastIndexOf('FROM ${ROOT}'))

  describe(dockerfile, () => {
    it(`makes the root of ${name} from the same packages as npm run images`, () => {
      assert.deepEqual(/rootfs\.sh \/rootfs (.*)$/m.exec(text)?.[1]?.split(' '), packages)
    })

    it('runs as a numeric user who is not root, so that the kubelet can tell', () => {
      assert.match(last, /^USER 65532:65532$/m)
    })

    if (isProgram) {
      it('copies only programs that are bundled, and starts one of them on a single-threaded collector', () => {
        const copied = [...last.matchAll(/\/src\/dist\/(\w+)\*\.mjs/g)].map(([, stem]) => `${stem}.mjs`)
        assert.notEqual(copied.length, 0)
        for (const file of copied) assert.ok(file in ENTRIES, file)
        assert.match(last, /^ENTRYPOINT \["node", "--single-threaded-gc"\]$/m)
        assert.ok(copied.includes(/^CMD \["\/app\/(\w+\.mjs)"\]$/m.exec(last)?.[1] ?? ''))
      })
    }
  })
}
