/** The pause image, made of one small program without any registry and without any image builder. */

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { imageDirectory, lockFile } from '../../build/machine/cache.ts'
import { run } from '../../build/machine/exec.ts'
import { withLock } from '../../build/machine/lock.ts'
import { PAUSE_IMAGE } from './node.ts'

const SOURCE = join(import.meta.dirname, 'pause.go')

/** Path of a docker archive with the pause image. Made once for each version of its source. */
export const pauseArchive = (): Promise<string> =>
  withLock(lockFile('pause'), async () => {
    const version = createHash('sha256').update(readFileSync(SOURCE)).digest('hex').slice(0, 12)
    const archive = join(imageDirectory(), `pause-${version}-${process.arch}.tar`)
    if (existsSync(archive)) return archive
    mkdirSync(imageDirectory(), { recursive: true })
    const workshop = mkdtempSync(join(imageDirectory(), 'pause-'))
    try {
      const root = join(workshop, 'root')
      mkdirSync(root)
      const env = { CGO_ENABLED: '0', GO111MODULE: 'off' }
      await run('go', ['build', '-trimpath', '-ldflags', '-s -w', '-o', join(root, 'pause'), SOURCE], { env })
      await packImage({ workshop, root, name: PAUSE_IMAGE, entrypoint: ['/pause'] })
      renameSync(join(workshop, 'image.tar'), archive)
    } finally {
      rmSync(workshop, { recursive: true, force: true })
    }
    return archive
  })

interface ImageContents {
  readonly workshop: string
  /** Folder that becomes the image's only layer. */
  readonly root: string
  readonly name: string
  readonly entrypoint: readonly string[]
}

/** Writes `image.tar`, in the form of `docker save`. */
const packImage = async ({ workshop, root, name, entrypoint }: ImageContents): Promise<void> => {
  await run(
    'tar',
    ['--create', '--file=layer.tar', '--owner=0', '--group=0', '--mtime=@0', `--directory=${root}`, '.'],
    {
      cwd: workshop,
    },
  )
  const layer = createHash('sha256')
    .update(readFileSync(join(workshop, 'layer.tar')))
    .digest('hex')
  const config = JSON.stringify(imageConfig(process.arch, layer, entrypoint))
  const id = createHash('sha256').update(config).digest('hex')
  const manifest = [{ Config: `${id}.json`, RepoTags: [name], Layers: ['layer.tar'] }]
  writeFileSync(join(workshop, `${id}.json`), config)
  writeFileSync(join(workshop, 'manifest.json'), JSON.stringify(manifest))
  await run('tar', ['--create', '--file=image.tar', 'manifest.json', `${id}.json`, 'layer.tar'], { cwd: workshop })
}

/** Pure: an OCI image configuration with one layer. `arch` is Node's name of the processor. */
export const imageConfig = (arch: string, layerSha256: string, entrypoint: readonly string[]): object => ({
  architecture: arch === 'x64' ? 'amd64' : arch,
  os: 'linux',
  config: { Entrypoint: entrypoint, User: '65532:65532' },
  rootfs: { type: 'layers', diff_ids: [`sha256:${layerSha256}`] },
})
