import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ReplyError } from '../../../../../proxy/upstream/redis/resp.ts'
import {
  eventOf,
  masterOf,
  placeName,
  refusalOf,
  replicasOf,
  sentinelsOf,
} from '../../../../../proxy/upstream/redis/sentinel-view.ts'

const replica = (port: string, flags: string, link: string) => [
  ...['name', `10.0.0.2:${port}`, 'ip', '10.0.0.2', 'port', port],
  ...['flags', flags, 'master-link-status', link],
]

describe('what a Sentinel says', () => {
  it('is the master as an address or a name, or that there is none by this name', () => {
    assert.deepEqual(masterOf(['10.0.0.1', '6379']), { host: '10.0.0.1', port: 6379 })
    assert.deepEqual(masterOf(['redis-0.redis.svc', '6379']), { host: 'redis-0.redis.svc', port: 6379 })
    assert.deepEqual(masterOf(['2001:db8::1', '6379']), { host: '2001:db8::1', port: 6379 })
    assert.equal(masterOf(null), null)
  })

  for (const reply of [[], ['10.0.0.1'], ['10.0.0.1', '0'], ['10.0.0.1', '65536'], ['a b', '1'], ['', '1'], 'x', 7]) {
    it(`is not taken for a master when it is ${JSON.stringify(reply)}`, () => assert.equal(masterOf(reply), undefined))
  }

  it('is the replicas that are up and have their link', () => {
    const replicas = [
      replica('1', 'slave', 'ok'),
      replica('2', 'slave', 'err'),
      replica('3', 's_down,slave', 'ok'),
      replica('4', 'slave,disconnected', 'ok'),
      ['ip', '10.0.0.2'],
      'garbage',
    ]
    assert.deepEqual(replicasOf(replicas).map(placeName), ['10.0.0.2:1'])
    assert.deepEqual(replicasOf('garbage'), [])
  })

  it('is the other Sentinels with their ids, those without one passed over', () => {
    const known = [
      ['ip', '10.0.0.3', 'port', '26379', 'runid', 'abc'],
      ['ip', '10.0.0.4', 'port', '26379', 'runid', ''],
    ]
    assert.deepEqual(sentinelsOf(known), [{ host: '10.0.0.3', port: 26379, id: 'abc' }])
  })

  it('is told apart from what a Redis without Sentinels says, and from one that wants a login', () => {
    assert.match(refusalOf(new ReplyError("ERR unknown command 'SENTINEL'")) ?? '', /^is not a Sentinel.*26379/)
    assert.equal(refusalOf(new ReplyError('NOAUTH Authentication required.')), 'needs a credential: set sentinel.auth')
    assert.equal(refusalOf('OK'), null)
  })
})

describe('an event of a Sentinel', () => {
  const message = (channel: string, text: string) => eventOf(['message', channel, text], 'mymaster')

  it('names the new master of a switch', () => {
    assert.deepEqual(message('+switch-master', 'mymaster 10.0.0.1 6379 10.0.0.2 6380'), {
      channel: '+switch-master',
      subject: 'master',
      place: { host: '10.0.0.2', port: 6380 },
    })
  })

  it('names the replica that is to be promoted', () => {
    const text = 'slave 10.0.0.2:6380 10.0.0.2 6380 @ mymaster 10.0.0.1 6379'
    assert.deepEqual(message('+failover-state-send-slaveof-noone', text), {
      channel: '+failover-state-send-slaveof-noone',
      subject: 'slave',
      place: { host: '10.0.0.2', port: 6380 },
    })
  })

  for (const [channel, text] of [
    ['+switch-master', 'other 10.0.0.1 6379 10.0.0.2 6380'],
    ['+promoted-slave', 'slave a 10.0.0.2 6380 @ other 10.0.0.1 6379'],
    ['+sdown', 'master other 10.0.0.1 6379'],
    ['+sdown', 'mymaster'],
    ['+sdown', ''],
  ] as const) {
    it(`of another master is none: ${channel} ${text}`, () => assert.equal(message(channel, text), null))
  }
})
