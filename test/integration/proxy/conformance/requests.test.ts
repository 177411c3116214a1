/** Requests of all kinds through the process: what is refused, and that everything else reaches the upstream as it came. */
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, it } from 'node:test'
import { HOSTILE, LEGAL } from './requests.cases.ts'
import { Bench, DELIVERIES, type Delivery, messages, withoutId } from './wire.ts'

let bench: Bench
before(async () => {
  bench = await Bench.start()
})
after(() => bench.stop())
afterEach(() => bench.clear())

/** Deliveries that tell something: no byte by byte of what is long, which the codec's own tests have. */
const deliveriesOf = (send: string): readonly Delivery[] => (send.length > 4_000 ? ['whole'] : DELIVERIES)

const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'

describe('a hostile request', () => {
  for (const { name, send, status } of HOSTILE) {
    for (const delivery of deliveriesOf(send)) {
      it(`is answered with ${status}, ${delivery}: ${name}`, async () => {
        bench.upstream.respond = (wire) => void wire.send(ANSWER)
        const client = bench.client()
        await client.send(send, delivery)
        const text = await client.over()
        // What is well-formed up to the end of a first message is answered first; the refusal is the last answer.
        const last = text.slice(text.search(/HTTP\/1\.1 \d{3} (?!.*HTTP\/1\.1 \d{3} )/s))
        assert.match(last, new RegExp(`^HTTP/1.1 ${status} `))
        assert.match(last, /\r\nContent-Type: application\/problem\+json\r\n/)
        assert.match(last, /\r\nX-Ambassador-Reason: bad_request\r\n/)
        assert.match(last, /\r\nProxy-Status: ambassador; error=http_request_error; details="/)
        assert.match(last, /\r\nConnection: close\r\n/)
        const body = last.slice(last.indexOf('\r\n\r\n') + 4)
        if (send.startsWith('HEAD ')) {
          assert.equal(body, '')
          return
        }
        const [, length] = /\r\nContent-Length: (\d+)\r\n/.exec(last) ?? []
        assert.equal(body.length, Number(length))
        assert.equal(JSON.parse(body).status, status)
        const answered = messages(text).whole.length - 1
        assert.equal(bench.upstream.requests.length, answered, 'the upstream has no complete request of it')
        if (bench.upstream.wires.length > answered) await bench.upstream.wires.at(-1)!.over()
      })
    }
  }
})

describe('a legal request', () => {
  for (const { name, send, forward } of LEGAL) {
    for (const delivery of deliveriesOf(send)) {
      it(`reaches the upstream as it came, ${delivery}: ${name}`, async () => {
        const expected = (forward ?? send.replace(/^(host:[ \t]*).*(?=\r$)/im, '$1{host}')).replace(
          '{host}',
          bench.host,
        )
        bench.upstream.respond = (wire) => void wire.send(ANSWER)
        const client = bench.client()
        await client.send(send, delivery)
        const isHead = send.startsWith('HEAD')
        await client.has(
          isHead ? /^HTTP\/1.1 200 OK\r\nContent-Length: 2\r\n.*\r\n$/s : /^HTTP\/1.1 200 OK\r\n.*\r\nok$/s,
        )
        assert.equal(withoutId(bench.upstream.requests[0]!), expected)
        assert.equal(bench.upstream.requests.length, 1)
        assert.equal(bench.upstream.wires.length, 1)
        assert.equal(bench.upstream.wires[0]!.text, bench.upstream.requests[0], 'nothing behind it')
      })
    }
  }
})

it('leaves no request and no connection behind', () => bench.idle())
