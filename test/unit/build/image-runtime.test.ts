import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseRuntime } from '../../../build/image-runtime.ts'

describe('parseRuntime', () => {
  it('takes the flags and the environment of the last stage', () => {
    const text = 'FROM a\nENV X=1\nFROM b\nENV A=b C_=2 PATH=/bin\nENTRYPOINT ["node", "--one", "--two=3"]\nCMD ["x"]\n'
    assert.deepEqual(parseRuntime(text), { flags: ['--one', '--two=3'], env: { A: 'b', C_: '2' } })
  })

  it('refuses a file that starts something else', () => {
    assert.throws(() => parseRuntime('ENTRYPOINT ["sh"]\n'), /has no ENTRYPOINT/)
  })
})
