import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AccessLogConfig } from '../../../../common/proxy-config.ts'
import { Ledger, sumOf } from '../../../../proxy/protocol/ledger.ts'
import type { TcpEnd, TcpRecord } from '../../../../proxy/protocol/tcp/session.ts'

const ERRORS: AccessLogConfig = { mode: 'Errors', sample: 0 }

function book(random = 0.5) {
  const told: string[] = []
  const logged: string[] = []
  const ledger = new Ledger<{ readonly bytesIn: number; readonly bytesOut: number }>({
    onTrouble: (reason, detail) => told.push(`${reason}: ${detail}`),
    onLogged: ({ end }) => logged.push(end),
    random: () => random,
  })
  const run = (end: TcpEnd, accessLog = ERRORS) => {
    const entry = { bytesIn: 1, bytesOut: 2 }
    ledger.add(entry)
    const record = { end, detail: 'why', bytesIn: 10, bytesOut: 20 } as TcpRecord
    ledger.close(entry, record, accessLog)
    ledger.close(entry, record, accessLog)
  }
  return { ledger, told, logged, run }
}

describe('Ledger', () => {
  it('counts what is open and what has ended, each end once', () => {
    const { ledger, run } = book()
    run('client_closed')
    run('upstream_reset')
    ledger.add({ bytesIn: 5, bytesOut: 6 })
    const totals = { accepted: 3, ends: { client_closed: 1, upstream_reset: 1 }, bytesIn: 25, bytesOut: 46 }
    assert.deepEqual(ledger.totals, totals)
    assert.equal(ledger.open.size, 1)
    const other = { accepted: 1, ends: { client_closed: 2, draining: 1 }, bytesIn: 1, bytesOut: 1 }
    assert.deepEqual(sumOf(totals, other), {
      accepted: 4,
      ends: { client_closed: 3, upstream_reset: 1, draining: 1 },
      bytesIn: 26,
      bytesOut: 47,
    })
  })

  it('tells of failures of the upstream and the configuration, not of load, shutdown or the application', () => {
    const { told, run } = book()
    const trouble: TcpEnd[] = [
      'dns_failed',
      'no_healthy_endpoint',
      'connect_refused',
      'connect_timeout',
      'tls_verify_failed',
      'auth_unavailable',
      'upstream_reset',
    ]
    const none: TcpEnd[] = ['client_closed', 'client_gone', 'idle_timeout', 'draining', 'queue_full', 'rate_limited']
    for (const end of [...trouble, ...none]) run(end)
    assert.deepEqual(
      told,
      trouble.map((end) => `${end}: why`),
    )
  })

  it('logs failures and a sample of the rest, everything, or nothing, by the mode', () => {
    for (const [mode, sample, expected] of [
      ['Errors', 0.4, ['client_gone']],
      ['Errors', 0.6, ['client_closed', 'client_gone']],
      ['All', 0, ['client_closed', 'client_gone']],
      ['Off', 1, []],
    ] as const) {
      const { logged, run } = book()
      run('client_closed', { mode, sample })
      run('client_gone', { mode, sample })
      assert.deepEqual(logged, expected, `${mode} ${sample}`)
    }
  })

  it('resolves when the last connection has ended', async () => {
    const { ledger } = book()
    await ledger.empty()
    const entries = [
      { bytesIn: 0, bytesOut: 0 },
      { bytesIn: 0, bytesOut: 0 },
    ]
    for (const entry of entries) ledger.add(entry)
    let isEmpty = false
    const empty = ledger.empty().then(() => {
      isEmpty = true
    })
    const record = { end: 'draining', detail: null, bytesIn: 0, bytesOut: 0 } as unknown as TcpRecord
    ledger.close(entries[0]!, record, ERRORS)
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(isEmpty, false)
    ledger.close(entries[1]!, record, ERRORS)
    await empty
  })
})
