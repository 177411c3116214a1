import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseEndpointList } from '../../../../../proxy/upstream/discovery/endpoint-list.ts'

const target = (host: string, port: number, weight = 1, priority = 0) => ({ host, port, weight, priority })

describe('a list of endpoints', () => {
  it('is one endpoint a line, with weight and priority in any order, comments and empty lines', () => {
    const text = [
      '\ufeff# primary',
      'A.example.com:5432 priority=1\tweight=3   # the big one',
      '',
      '  10.0.7.12:80 weight=1000\r',
      '#[::2]:1',
      '[2001:DB8::7]:5432 priority=15',
      '_svc.local.:1',
    ].join('\n')
    assert.deepEqual(parseEndpointList(text), {
      ok: true,
      targets: [
        target('a.example.com', 5432, 3, 1),
        target('10.0.7.12', 80, 1000),
        target('2001:db8::7', 5432, 1, 15),
        target('_svc.local.', 1),
      ],
    })
  })

  it('says the zone of an endpoint', () => {
    assert.deepEqual(parseEndpointList('a:1 zone=eu-west-1a weight=2\nb:1'), {
      ok: true,
      targets: [{ ...target('a', 1, 2), zone: 'eu-west-1a' }, target('b', 1)],
    })
  })

  const refused: [text: string, problem: string][] = [
    ['', 'line 1, column 1: has no endpoint, write at least one line host:port'],
    ['# nothing\n\n', 'line 3, column 1: has no endpoint, write at least one line host:port'],
    ['a:1\n  b', "line 2, column 3: 'b' is not an endpoint, use host:port or [address]:port"],
    ['a:0', "line 1, column 1: port '0' is out of range, use 1 to 65535"],
    ['a:70000', "line 1, column 1: port '70000' is out of range, use 1 to 65535"],
    ['a:', "line 1, column 1: port '' is out of range, use 1 to 65535"],
    ['a:1e3', "line 1, column 1: port '1e3' is out of range, use 1 to 65535"],
    ['http://a:80', "line 1, column 1: 'http://a:80' has a scheme, use host:port"],
    ['::1', "line 1, column 1: '::1' has no port, use [::1]:port"],
    ['[::1]', "line 1, column 1: '[::1]' is not an endpoint, use host:port or [address]:port"],
    ['[fe80::1%eth0]:1', "line 1, column 1: host 'fe80::1%eth0' is not a DNS name or an IP address, correct it"],
    ['10.0.0.300:1', "line 1, column 1: host '10.0.0.300' is not a DNS name or an IP address, correct it"],
    ['a..b:1', "line 1, column 1: host 'a..b' is not a DNS name or an IP address, correct it"],
    ['a:1 weight=0', "line 1, column 5: weight '0' is out of range, use 1 to 1000"],
    ['a:1 priority=16', "line 1, column 5: priority '16' is out of range, use 0 to 15"],
    ['a:1 weight=2 weight=3', 'line 1, column 14: weight stands twice, remove one'],
    ['a:1  wieght=2', "line 1, column 6: 'wieght=2' is not known, use weight=N, priority=N or zone=NAME"],
    ['a:1 toString=2', "line 1, column 5: 'toString=2' is not known, use weight=N, priority=N or zone=NAME"],
    ['a:1 zone=', "line 1, column 5: zone '' is not a name, use one such as eu-west-1a"],
    ['a:1 zone=-west', "line 1, column 5: zone '-west' is not a name, use one such as eu-west-1a"],
    ['a:1 zone=a zone=b', 'line 1, column 12: zone stands twice, remove one'],
    ['a:1, b:2', "line 1, column 1: port '1,' is out of range, use 1 to 65535"],
    ['a:1\nb:2\nA:1', "line 3, column 1: 'A:1' stands in line 1 too, remove one"],
    ['[{"host":"a"}]', `line 1, column 1: '[{"host":"a"}]' is not an endpoint, use host:port or [address]:port`],
  ]
  for (const [text, problem] of refused) {
    it(`is refused with line and column: ${JSON.stringify(text)}`, () => {
      assert.deepEqual(parseEndpointList(text), { ok: false, problem })
    })
  }

  it('has at most 1000 endpoints', () => {
    const lines = Array.from({ length: 1001 }, (_, i) => `h${i}:1`)
    assert.equal(parseEndpointList(lines.slice(1).join('\n')).ok, true)
    assert.deepEqual(parseEndpointList(lines.join('\n')), {
      ok: false,
      problem: 'line 1001, column 1: more than 1000 endpoints, remove some',
    })
  })

  it('is either good or refused with a place, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'a1:.[]=# \t\n\r%_-weightpriority') }), (text) => {
        const list = parseEndpointList(text)
        if (!list.ok) assert.match(list.problem, /^line \d+, column \d+: .+, (use|correct|remove|write) /)
        else assert.ok(list.targets.length > 0 && list.targets.every(({ port }) => port >= 1 && port <= 65535))
      }),
      { numRuns: 2000 },
    )
  })
})
