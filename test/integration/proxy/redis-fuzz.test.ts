/**
 * Random conversations with Redis are answered through the sidecar, byte by byte, as by the server itself.
 * `FUZZ_INPUTS=10000 FUZZ_SEED=1 node --test test/integration/proxy/redis-fuzz.test.ts` is the long mode: no time box. Without a seed it is the
 * same in each run, so that a difference that was never seen is found by whoever looks for one, and does not stop somebody else's work.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { SeededRandom } from '../../fuzz/random.ts'
import { makeScript, type RedisScript } from '../../fuzz/redis-scripts.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { Talker } from '../../helpers/redis-beside.ts'
import { HOST } from '../../helpers/sentinel-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

const TIME_BOX_MS = 4000
/** A machine that stands still for the time must not leave nothing tried. */
const LEAST = 20
const PATIENCE_MS = 20_000
const inputs = Number(process.env['FUZZ_INPUTS'] ?? 0)
const seed = Number(process.env['FUZZ_SEED'] ?? 1)

describe('random conversations with Redis', { timeout: inputs > 0 ? 24 * 3600 * 1000 : 240_000 }, () => {
  const ends: (() => unknown)[] = []
  let control: Talker
  let ports: { readonly direct: number; readonly own: number; readonly injecting: number }

  before(async () => {
    const settings = [
      'user default on nopass ~* &* +@all',
      'user app on >first ~* &* +@all',
      'enable-debug-command yes',
    ]
    const server = await RedisServer.start(settings)
    ends.push(() => server.stop())
    const endpoints = [{ host: HOST, port: server.port }]
    const auth = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    const own = await redisProxy({ endpoints })
    ends.push(() => own.stop())
    const injecting = await redisProxy({ endpoints, auth }, {}, { redis: { password: 'first' } })
    ends.push(() => injecting.stop())
    ports = { direct: server.port, own: own.port, injecting: injecting.port }
    control = new Talker(server.port)
    ends.push(() => control.client.socket.destroy())
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  /** All that comes, from a server without keys and without channels of others. */
  async function answerOf(port: number, { bytes, cuts }: RedisScript): Promise<string> {
    while ((await control.ask('CLIENT LIST TYPE pubsub')) !== '$0\r\n\r\n') {}
    await control.askAll(['FLUSHALL', 'SCRIPT FLUSH'])
    const client = new TestClient({ port })
    client.socket.setNoDelay(true)
    for (const [at, cut] of [0, ...cuts].entries()) {
      client.socket.write(bytes.slice(cut, cuts[at]), 'latin1')
      if (cuts.length > 0) await new Promise((resolve) => setImmediate(resolve))
    }
    client.end()
    let end = ''
    const patience = setTimeout(() => {
      end = 'and it is never ended'
      client.socket.destroy()
    }, PATIENCE_MS)
    await client.closed()
    clearTimeout(patience)
    return client.text.replace(/(\$2\r\nid\r\n:)\d+/g, '$1N') + end
  }

  it('are answered as by the server itself, with and without a credential', async (t) => {
    const random = new SeededRandom(seed)
    const started = performance.now()
    let count = 0
    let bytes = 0
    while (inputs > 0 ? count < inputs : count < LEAST || performance.now() - started < TIME_BOX_MS) {
      const script = makeScript(random)
      const expected = await answerOf(ports.direct, script)
      const what = `seed ${seed}, input ${count}: ${JSON.stringify(script)}`
      assert.equal(await answerOf(ports.own, script), expected, `without a credential, ${what}`)
      assert.equal(await answerOf(ports.injecting, script), expected, `with one, ${what}`)
      count++
      bytes += expected.length
    }
    t.diagnostic(`seed ${seed}: ${count} conversations, ${bytes} bytes of answers`)
    assert.ok(bytes > count)
  })
})
