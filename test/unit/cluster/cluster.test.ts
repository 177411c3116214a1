/** What is said before anything is started, and what holds for a cluster that is not ours. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { clusterForTests, running, up } from '../../cluster/cluster.ts'

describe('up', () => {
  for (const name of ['', 'A', 'a_b', '-a', 'a-', 'a'.repeat(21)]) {
    it(`refuses the name '${name}'`, async () => {
      await assert.rejects(up({ name }), {
        message: `cluster '${name}': a name has lower-case letters, digits and dashes, 20 at most, choose another`,
      })
    })
  }

  for (const nodes of [0, 3, 1.5, Number.NaN]) {
    it(`refuses ${nodes} nodes`, async () => {
      await assert.rejects(up({ nodes }), { message: `cluster 'dev': ${nodes} nodes cannot be had, use 1 to 2` })
    })
  }
})

describe('with TEST_KUBECONFIG', () => {
  let directory: string
  const before = process.env['TEST_KUBECONFIG']
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ambassador-given-'))
  })
  afterEach(() => {
    rmSync(directory, { recursive: true })
    if (before === undefined) delete process.env['TEST_KUBECONFIG']
    else process.env['TEST_KUBECONFIG'] = before
  })

  it('refuses a file that does not exist', async () => {
    process.env['TEST_KUBECONFIG'] = join(directory, 'none')
    await assert.rejects(clusterForTests(), {
      name: 'ClusterUnavailable',
      message: `TEST_KUBECONFIG: file '${join(directory, 'none')}' does not exist, set it to that of a cluster that you have`,
    })
  })

  it('uses that cluster, never takes it down, and says how its images must come', async () => {
    const kubeconfig = join(directory, 'config')
    writeFileSync(kubeconfig, '{}')
    for (const program of ['kubectl', 'helm']) writeFileSync(join(directory, program), '', { mode: 0o755 })
    const path = process.env['PATH']
    process.env['PATH'] = `${directory}:${path}`
    process.env['TEST_KUBECONFIG'] = kubeconfig
    try {
      const cluster = await clusterForTests()
      assert.equal(cluster.kubeconfig, kubeconfig)
      assert.deepEqual(cluster.binaries, { kubectl: join(directory, 'kubectl'), helm: join(directory, 'helm') })
      assert.equal(cluster.hostAddress, undefined)
      await cluster.down()
      await assert.rejects(cluster.loadImage('a.tar'), /^ClusterUnavailable: image 'a\.tar': cannot be loaded/)
    } finally {
      process.env['PATH'] = path
    }
  })
})

describe('running', () => {
  it('says how a cluster is brought up that is not', () => {
    assert.throws(() => running('no-such-cluster'), {
      message: "cluster 'no-such-cluster': is not up, run: npm run cluster -- up --name no-such-cluster",
    })
  })
})
