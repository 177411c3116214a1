/** The demo on a real cluster. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { delimiter, dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { world } from './lib/world.ts'

const root = join(import.meta.dirname, '../..')

describe('npm run demo -- --cluster', () => {
  it('tells its story on the current context, every claim holds, and its namespace is removed', async (t) => {
    const w = await world('e2e-demo')
    try {
      const { kubeconfig, binaries } = w.cluster
      const PATH = `${dirname(binaries.kubectl)}${delimiter}${process.env['PATH']}`
      const child = spawn(process.execPath, ['cli/demo/main.ts', '--cluster'], {
        cwd: root,
        env: { ...process.env, KUBECONFIG: kubeconfig, PATH },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let text = ''
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
      const [code] = (await once(child, 'close')) as [number]
      assert.equal(code, 0, text)
      assert.match(text, /^All \d+ claims held, in /m)
      const namespace = /namespace '(ambassador-demo-[0-9a-f]{6})'/.exec(text)?.[1] ?? ''
      const left = await w.kubectl.try(['get', 'namespace', namespace, '-o', 'jsonpath={.status.phase}'])
      assert.ok(left.code !== 0 || left.stdout === 'Terminating', left.stdout)
      t.diagnostic(text.split('\n').findLast((line) => line.startsWith('All')) ?? '')
    } finally {
      await w.close()
    }
  })
})
