import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createLog } from '../../../../common/log.ts'
import { ProxyLog } from '../../../../proxy/observe/log.ts'

function logging(level?: 'debug' | 'warn') {
  const lines: Record<string, unknown>[] = []
  const log = new ProxyLog({ ...(level && { level }), write: (line) => lines.push(JSON.parse(line)) })
  return { log, lines }
}

describe('the log of the proxy', () => {
  it('writes lines of the same shape as the log of the operator', () => {
    const { log, lines } = logging()
    const texts: string[] = []
    const pino = createLog({ name: 'proxy', destination: { write: (line: string) => texts.push(line) } })
    const cause = new Error('inner')
    const err = Object.assign(new Error('outer', { cause }), { code: 'E_OUTER' })
    for (const each of [log, pino]) each.warn({ ns: 'shop', port: 8081, err }, 'a message')
    const [ours] = lines
    const theirs = JSON.parse(texts[0] as string) as Record<string, unknown>
    assert.deepEqual(Object.keys(ours ?? {}).sort(), Object.keys(theirs).sort())
    for (const key of ['level', 'name', 'msg', 'ns', 'port']) assert.equal(ours?.[key], theirs[key])
    const [a, b] = [ours?.['err'], theirs['err']] as { message: string; code: string; cause: { message: string } }[]
    assert.equal(a?.message, b?.message)
    assert.equal(a?.code, b?.code)
    assert.equal(a?.cause.message, 'inner')
    assert.match(String(ours?.['time']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  })

  it('passes over what is below its level, which may change while it runs', () => {
    const { log, lines } = logging('warn')
    log.info({}, 'one')
    log.error({}, 'two')
    log.level = 'debug'
    log.debug({}, 'three')
    assert.deepEqual(
      lines.map((line) => line['msg']),
      ['two', 'three'],
    )
  })
})
