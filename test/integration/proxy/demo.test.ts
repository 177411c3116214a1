import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, it } from 'node:test'

const ROOT = join(import.meta.dirname, '../../..')

describe('npm run demo', () => {
  it('tells its story in less than a minute, and every claim holds', { timeout: 90_000 }, async (t) => {
    const startedAt = performance.now()
    const child = spawn(process.execPath, ['cli/demo/main.ts'], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
    const [code] = (await once(child, 'close')) as [number]
    const seconds = (performance.now() - startedAt) / 1000
    assert.equal(code, 0, text)
    assert.match(text, /^All \d+ claims held, in /m)
    assert.doesNotMatch(text, /✘/)
    // What it says of the patch is the patch: the container that the webhook adds, and the mount of the token.
    assert.match(text, /^ {2}\+ .*mountPath: \/etc\/ambassador\/secrets\/payments-token/m)
    assert.ok(seconds < 60, `took ${seconds} s`)
    t.diagnostic(`${seconds.toFixed(1)} s`)
  })
})
