import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { httpAccessLine } from '../../../../proxy/observe/access-log.ts'
import { DURATION_BUCKETS_MS, HttpCells } from '../../../../proxy/observe/cells.ts'
import { LineWriter } from '../../../../proxy/observe/line-writer.ts'

const directory = mkdtempSync(join(tmpdir(), 'ambassador-log-'))
after(() => rmSync(directory, { recursive: true }))

describe('an access line', () => {
  it('is one JSON object with its keys in words, and without what does not apply', () => {
    const record = {
      requestId: 'id"1',
      traceId: '0af7651916cd43dd8448eb211c80319c',
      method: 'GET',
      path: '/a\u00e9',
      status: 503,
      reason: 'circuit_open',
      detail: 'every endpoint fails',
      upstream: 'live',
      route: 'routes[1]',
      endpoint: null,
      attempts: 0,
      requestBytes: 1,
      responseBytes: 2,
    }
    const timers = { queueMs: 0.12345, connectMs: 0, tlsMs: 0, ttfbMs: null, totalMs: 1.5 }
    const time = new Date('2026-11-21T00:00:00Z')
    const line = httpAccessLine('shop', 'payments', { ...record, ...timers }, time)
    assert.match(line, /^[^\n]+\n$/)
    assert.deepEqual(JSON.parse(line), {
      level: 'warn',
      time: '2026-11-21T00:00:00.000Z',
      name: 'access',
      ns: 'shop',
      ambassador: 'payments',
      ...record,
      queue_ms: 0.123,
      connect_ms: 0,
      tls_ms: 0,
      ttfb_ms: null,
      total_ms: 1.5,
      msg: 'request',
    })
    const good = JSON.parse(
      httpAccessLine(
        'shop',
        'payments',
        { ...record, ...timers, traceId: null, route: null, reason: null, detail: null, status: 200 },
        time,
      ),
    )
    assert.equal(good.level, 'info')
    assert.ok(!('reason' in good) && !('detail' in good) && !('route' in good) && !('traceId' in good))
  })
})

describe('LineWriter', () => {
  it('writes every line in order, short and long ones, soon or at the flush', async () => {
    const file = join(directory, 'lines')
    const fd = openSync(file, 'w')
    const writer = new LineWriter(fd)
    const lines = Array.from({ length: 2000 }, (_, i) => `${i} ${'x'.repeat(i % 97 === 0 ? 6000 : i % 300)}\n`)
    for (const line of lines.slice(0, 1000)) writer.write(line)
    while (readFileSync(file, 'utf8').length < lines.slice(0, 1000).join('').length) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    for (const line of lines.slice(1000, 1010)) writer.write(line)
    writer.flush()
    assert.equal(readFileSync(file, 'utf8'), lines.slice(0, 1010).join(''))
    assert.equal(writer.dropped, 0)
    closeSync(fd)
  })

  it('drops lines rather than grow when nobody takes them', () => {
    const fd = openSync(join(directory, 'dropped'), 'w')
    const writer = new LineWriter(fd)
    // Nothing is written before the next turn, as with a reader that stands still.
    for (let i = 0; i < 30_000; i++) writer.write(`${'x'.repeat(99)}\n`)
    assert.ok(writer.dropped > 15_000 && writer.dropped < 25_000, String(writer.dropped))
    writer.flush()
    closeSync(fd)
  })
})

describe('HttpCells', () => {
  it('counts each exchange in the bucket of its duration, per status', () => {
    const cells = new HttpCells()
    for (const ms of [0.4, 1, 1.1, 9999, 10_001]) cells.add(200, ms)
    cells.add(0, 3)
    const cell = cells.byStatus[200]!
    assert.equal(cell.count, 5)
    assert.equal(cell.sumMs, 0.4 + 1 + 1.1 + 9999 + 10_001)
    assert.equal(cell.buckets[0], 2)
    assert.equal(cell.buckets[1], 1)
    assert.equal(cell.buckets[DURATION_BUCKETS_MS.length - 1], 1)
    assert.equal(cell.buckets[DURATION_BUCKETS_MS.length], 1)
    assert.equal(cells.byStatus[0]?.count, 1)
    assert.equal(cells.byStatus[500], null)
  })
})
