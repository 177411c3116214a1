/** What drivers, job queues and caches say to Redis: answered through the sidecar, byte by byte, as by the server itself. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { converse, type Side, Talker } from '../../helpers/redis-beside.ts'
import { bySentinel, HOST } from '../../helpers/sentinel-proxy.ts'
import { Volumes } from '../../helpers/volume.ts'

const FOLDER = join(import.meta.dirname, '../../conversations/redis')
/** What conversations change of the server, as it is before each. */
const AS_NEW = [
  'CLIENT UNPAUSE',
  'CONFIG SET maxmemory 0',
  'CONFIG SET busy-reply-threshold 5000',
  'CONFIG SET min-replicas-to-write 0',
  'CONFIG SET dir /tmp',
  'CONFIG SET save ""',
  'CONFIG SET key-load-delay 0',
  'CONFIG SET notify-keyspace-events ""',
  'FLUSHALL',
  'ACL DELUSER tester app2',
  'ACL SETUSER app reset on >first ~* &* +@all',
]

/** What takes the server longer than most conversations. */
const WITHOUT_SCRIPTS = ['SCRIPT FLUSH', 'FUNCTION FLUSH']

/** What a connection says before a conversation that does not decide itself which protocol it speaks. */
const [RESP2, RESP3] = ['', 'HELLO 3'] as const

interface Conversation {
  readonly title: string
  readonly script: string
  /** It decides itself which protocol it speaks. */
  readonly isAsItIs: boolean
  /** Its logins are its own: a credential of the sidecar would be used in their place. */
  readonly isOwnLogin: boolean
}

function conversationsOf(file: string): Conversation[] {
  return readFileSync(join(FOLDER, file), 'utf8')
    .split(/^# /m)
    .slice(1)
    .map((text) => {
      const [first = '', ...rest] = text.split('\n')
      const [, title = '', marks = ''] = /^(.*?)(?: (\*+))?$/.exec(first) ?? []
      return { title, script: rest.join('\n'), isAsItIs: marks !== '', isOwnLogin: marks === '**' }
    })
}

describe('conversations with Redis', { timeout: 300_000 }, () => {
  const ends: (() => unknown)[] = []
  const sides: { readonly what: string; readonly side: Side; readonly versions: readonly string[] }[] = []
  let server: RedisServer
  let control: Talker

  before(async () => {
    const files = new Volumes()
    ends.push(() => files.remove())
    const pki = new Pki()
    const authority = pki.authority()
    const [leaf, own] = [authority.issue(), authority.issue({ usage: 'clientAuth', names: ['web'] })]
    pki.remove()
    const parts = { 'cert-file': leaf.cert, 'key-file': leaf.key, 'ca-cert-file': authority.cert }
    const lines = Object.entries(parts).map(([name, text]) => {
      writeFileSync(join(files.secretsDir, name), text)
      return `tls-${name} ${join(files.secretsDir, name)}`
    })
    const settings = [
      'user default on nopass ~* &* +@all',
      'user app on >first ~* &* +@all',
      'enable-debug-command yes',
      'enable-protected-configs yes',
      'loading-process-events-interval-bytes 1024',
    ]
    const tlsPort = await freePort()
    server = await RedisServer.start([...settings, ...lines, `tls-port ${tlsPort}`, 'tls-auth-clients yes'])
    ends.push(() => server.stop())
    control = new Talker(server.port)
    ends.push(() => control.client.socket.destroy())
    const sentinel = await RedisServer.start(
      [`sentinel monitor mymaster ${HOST} ${server.port} 1`, 'sentinel down-after-milliseconds mymaster 600000'],
      { isSentinel: true },
    )
    ends.push(() => sentinel.stop())
    const proxy = async (...args: Parameters<typeof redisProxy>) => {
      const made = await redisProxy(...args)
      ends.push(() => made.stop())
      return made.port
    }
    const at = (port: number) => ({ endpoints: [{ host: HOST, port }] })
    const auth = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } }, clientCertificate: { secretName: 'web' } }
    const secrets = {
      redis: { password: 'first' },
      ca: { 'ca.crt': authority.cert },
      web: { 'tls.crt': own.cert, 'tls.key': own.key },
    }
    const preamble = ['AUTH app first']
    sides.push(
      { what: 'without a credential', side: { port: await proxy(at(server.port)), preamble }, versions: [RESP3] },
      {
        what: 'with a credential, TLS and a client certificate',
        side: { port: await proxy({ ...at(tlsPort), auth, tls }, {}, secrets), preamble: [] },
        versions: [RESP2, RESP3],
      },
      {
        what: 'with a credential, by a Sentinel',
        side: { port: await proxy({ ...bySentinel([sentinel]), auth }, {}, secrets), preamble: [] },
        versions: [RESP2],
      },
    )
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  async function had(script: string, side: Side, more: readonly string[]): Promise<string[]> {
    // Whoever was subscribed would be counted as one that hears.
    const listening = (list: string) =>
      list.split('\n').some((line) => /^id=/.test(line) && !/ name=sentinel-/.test(line))
    while (listening((await control.ask('CLIENT LIST TYPE pubsub')).replace(/^[^\n]*\n/, ''))) {}
    const lines = /EVAL|SCRIPT|FUNCTION/.test(script) ? [...AS_NEW, ...WITHOUT_SCRIPTS] : AS_NEW
    const answers = await control.askAll(lines)
    assert.deepEqual(
      answers.filter((answer) => answer.startsWith('-')),
      [],
      lines.join(),
    )
    return converse(script, { port: side.port, preamble: [...side.preamble, ...more] }, server.port)
  }

  for (const file of readdirSync(FOLDER)) {
    describe(file.replace('.txt', ''), () => {
      for (const { title, script, isAsItIs, isOwnLogin } of conversationsOf(file)) {
        it(title, async () => {
          for (const more of isAsItIs ? [[]] : [[], [RESP3]]) {
            const direct = { port: server.port, preamble: ['AUTH app first'] }
            const expected = await had(script, direct, more)
            for (const { what, side, versions } of isOwnLogin ? sides.slice(0, 1) : sides) {
              if (!isAsItIs && !versions.includes(more.join())) continue
              assert.deepEqual(await had(script, side, more), expected, [what, ...more].join(', '))
            }
          }
        })
      }
    })
  }
})
