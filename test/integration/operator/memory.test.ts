import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { it } from 'node:test'
import { rolldown } from 'rolldown'
import { eventually } from '../../e2e/lib/kubectl.ts'
import { largeCluster } from '../../helpers/large-cluster.ts'

interface Memory {
  readonly rss: number
  readonly anonymous: number
  readonly peak: number
  readonly cpuSeconds: number
}

// As Dockerfile.operator starts it: bundled, with these flags and variables; 96 MiB are a quarter of the chart's limit.
const FLAGS = ['--single-threaded-gc']
const VARIABLES = {
  NODE_OPTIONS: '--max-semi-space-size=2 --max-old-space-size=96',
  MALLOC_ARENA_MAX: '1',
  MALLOC_TRIM_THRESHOLD_: '131072',
}

async function bundled(directory: string): Promise<string> {
  const build = await rolldown({
    input: join(import.meta.dirname, '../../helpers/operator-process.ts'),
    platform: 'node',
    onLog() {},
  })
  await build.write({ dir: directory, format: 'esm', entryFileNames: 'operator.mjs' })
  await build.close()
  return join(directory, 'operator.mjs')
}

function memoryOf(child: ChildProcess): Promise<Memory> {
  return new Promise((resolve) => {
    const lines = createInterface({ input: child.stdout! })
    lines.once('line', (line) => {
      lines.close()
      resolve(JSON.parse(line) as Memory)
    })
    child.stdin?.write('memory\n')
  })
}

it('comes to rest below 128 MiB of its own memory with 10000 injected pods and 500 Ambassadors, 200 pods changing each second', {
  timeout: 900_000, // each wait has its own bound
}, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'operator-'))
  await using cluster = await largeCluster({ pods: 10_000, ambassadors: 500, changesPerSecond: 200 })
  const child = spawn(process.execPath, [...FLAGS, await bundled(directory), cluster.url], {
    env: { ...process.env, ...VARIABLES },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    const started = performance.now()
    await eventually('every ConfigMap written', async () => cluster.counts.configMaps >= 500, {
      everyMs: 50,
      timeoutMs: 240_000,
    })
    const publishedMs = performance.now() - started
    await eventually('every sidecar asked', async () => cluster.counts.asked >= 10_000, { timeoutMs: 240_000 })
    await eventually('every status written', async () => cluster.counts.statuses >= 500, { timeoutMs: 240_000 })
    // What the start read is given back by collections and by the allocator, which come as the changes go on: how late depends on
    // how often the machine let this process run.
    let memory = await memoryOf(child)
    await eventually('the memory of the start given back', async () => {
      memory = await memoryOf(child)
      return memory.anonymous < 128
    })
    const { counts } = cluster
    t.diagnostic(
      `${counts.podBytes} bytes a pod; everything published after ${Math.round(publishedMs)} ms; ${JSON.stringify(memory)} MiB; ${JSON.stringify(counts)}`,
    )
    assert.ok(memory.peak < 256, `${memory.peak} MiB at its most, of which the chart allows 384`)
    child.stdin?.write('stop\n')
    const code = await new Promise((resolve) => child.once('exit', resolve))
    assert.equal(code, 0)
  } finally {
    child.kill('SIGKILL')
    rmSync(directory, { recursive: true })
  }
})
