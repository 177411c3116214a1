import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { becomeProxy, MALLOC_ENV, NODE_FLAGS } from '../../../cli/proxy-process.ts'

const dockerfile = readFileSync(join(import.meta.dirname, '../../../Dockerfile.proxy'), 'utf8')

function started(execArgv: string[], env: NodeJS.ProcessEnv = {}) {
  const calls: [string, readonly string[], NodeJS.ProcessEnv][] = []
  const execve = (...call: (typeof calls)[number]) => calls.push(call) as never
  becomeProxy({ execArgv, execPath: '/node', argv: ['/node', '/main.ts', 'run', '-f', 'x'], env, execve })
  return calls
}

describe('the process of ambassador run', () => {
  it('has the flags of Node and the settings of malloc that the image has', () => {
    const [, entry = ''] = /^ENTRYPOINT (\[.*\])$/m.exec(dockerfile) ?? []
    assert.deepEqual(JSON.parse(entry), ['node', ...NODE_FLAGS])
    const line = /^ENV .*$/m.exec(dockerfile)?.[0] ?? ''
    const malloc = [...line.matchAll(/(MALLOC_\w+)=(\S+)/g)].map(([, name, value]) => [name, value])
    assert.deepEqual(Object.fromEntries(malloc), MALLOC_ENV)
  })

  it('starts itself anew with the flags that are missing, and keeps those of the person who started it', () => {
    assert.deepEqual(started(['--expose-gc', '--max-semi-space-size=16'], { MALLOC_ARENA_MAX: '2', HOME: '/' }), [
      [
        '/node',
        [
          ...['/node', '--expose-gc', '--max-semi-space-size=16'],
          ...['--single-threaded-gc', '--use-openssl-ca'],
          ...['/main.ts', 'run', '-f', 'x'],
        ],
        { ...MALLOC_ENV, MALLOC_ARENA_MAX: '2', HOME: '/' },
      ],
    ])
  })

  it('starts itself anew for the settings of malloc alone', () => {
    const [call] = started([...NODE_FLAGS])
    assert.deepEqual(call?.[1], ['/node', ...NODE_FLAGS, '/main.ts', 'run', '-f', 'x'])
    assert.deepEqual(call?.[2], MALLOC_ENV)
  })

  it('goes on as it is with all of them, and where a process cannot do that', () => {
    assert.deepEqual(started([...NODE_FLAGS], { ...MALLOC_ENV, MALLOC_ARENA_MAX: '4' }), [])
    assert.doesNotThrow(() => becomeProxy({ execArgv: [], execPath: '/node', argv: [], env: {} }))
  })
})
