/** Responses of all kinds through the process: what is never passed on, what reaches the application as it came, and what is cut short. */
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, it } from 'node:test'
import { BROKEN_BODIES, CUT, ENDLESS, HOSTILE, LEGAL } from './responses.cases.ts'
import { Bench, DELIVERIES, type Delivery, type Wire } from './wire.ts'

let bench: Bench
before(async () => {
  bench = await Bench.start()
})
after(() => bench.stop())
afterEach(() => bench.clear())

const deliveriesOf = (send: string): readonly Delivery[] => (send.length > 4_000 ? ['whole'] : DELIVERIES)
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const OLD = 'GET / HTTP/1.0\r\n\r\n'

/** Sends a request and has it answered with some bytes. */
async function exchange(
  request: string,
  response: string,
  delivery: Delivery,
  then: (wire: Wire) => void,
): Promise<Wire> {
  const client = bench.client()
  await client.send(request)
  const wire = await bench.upstream.wire()
  await wire.request()
  await wire.send(response, delivery)
  then(wire)
  return client
}

function isProblem(text: string, reason: string): void {
  const answer = text.replace(/^(HTTP\/1\.1 1\d\d [^\r]*\r\n\r\n)*/, '')
  assert.match(answer, /^HTTP\/1\.1 502 Bad Gateway\r\nContent-Type: application\/problem\+json\r\n/)
  assert.match(answer, new RegExp(`\r\nX-Ambassador-Reason: ${reason}\r\n`))
  assert.match(answer, /\r\nProxy-Status: ambassador; error=[a-z_]+; details="[^"]+"\r\n/)
  assert.equal(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)).reason, reason)
}

describe('a hostile response', () => {
  for (const { name, send } of HOSTILE) {
    for (const delivery of deliveriesOf(send)) {
      it(`becomes 502, ${delivery}: ${name}`, async () => {
        const client = await exchange(GET, send, delivery, () => {})
        isProblem(await client.has(/"requestId":"[^"]+"\}\n$/), 'upstream_reset')
        await bench.upstream.wires[0]!.over()
        assert.equal(bench.upstream.wires.length, 1, 'it is not asked again')
        // The connection of the application is in order.
        const before = client.length
        bench.upstream.respond = (wire) => void wire.send('HTTP/1.1 204 No Content\r\n\r\n')
        await client.send(GET)
        await client.until('the next answer', () => client.text.slice(before).endsWith('\r\n\r\n') || client.isOver)
        assert.match(client.text.slice(before), /^HTTP\/1\.1 204 /)
      })
    }
  }
})

describe('a response whose body breaks', () => {
  for (const { name, send } of BROKEN_BODIES) {
    for (const delivery of deliveriesOf(send)) {
      it(`is never taken for a whole one, ${delivery}: ${name}`, async () => {
        const client = await exchange(GET, send, delivery, () => {})
        await client.until('an end', () => client.isOver || client.text.endsWith('}\n'))
        if (client.text.startsWith('HTTP/1.1 502')) isProblem(client.text, 'upstream_reset')
        else {
          assert.match(client.text, /^HTTP\/1\.1 200 OK\r\n/)
          assert.doesNotMatch(client.text, /\r\n0\r\n(.*\r\n)?\r\n$/)
          assert.ok(client.isOver)
        }
        await bench.upstream.wires[0]!.over()
      })
    }
  }
})

describe('a legal response', () => {
  for (const { name, send, expect = send, method = 'GET', ends = false, isOld = false } of LEGAL) {
    for (const delivery of deliveriesOf(send)) {
      it(`reaches the application as it came, ${delivery}: ${name}`, async () => {
        const request = isOld ? OLD : GET.replace('GET', method)
        const client = await exchange(request, send, delivery, (wire) => ends && wire.end())
        // A body that is chunked by the proxy is cut wherever its reads were.
        const isRechunked = delivery === 'bytewise' && ends && !isOld
        const isThere = (): boolean => !isRechunked || dechunked(client.text) === dechunked(expect)
        await client.until('the answer', () => (client.length >= expect.length && isThere()) || client.isOver)
        if (isOld) await client.over()
        if (isRechunked) assert.equal(dechunked(client.text), dechunked(expect))
        else assert.equal(client.text, expect)
        if (isOld) return
        // Nothing of it is left for the next one.
        const before = client.length
        bench.upstream.respond = (wire) => void wire.send('HTTP/1.1 204 No Content\r\nX-Next: 1\r\n\r\n')
        await client.send(GET)
        await client.until('the next answer', () => client.text.slice(before).endsWith('\r\n\r\n') || client.isOver)
        assert.equal(client.text.slice(before), 'HTTP/1.1 204 No Content\r\nX-Next: 1\r\n\r\n')
      })
    }
  }
})

/** Head and content, however the body was cut into chunks. */
function dechunked(text: string): string {
  const headEnd = text.indexOf('\r\n\r\n') + 4
  let content = ''
  let at = headEnd
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at)
    const size = Number.parseInt(text.slice(at, lineEnd), 16)
    if (!(size > 0) || lineEnd < 0) return `${text.slice(0, headEnd)}${content}${text.slice(at)}`
    content += text.slice(lineEnd + 2, lineEnd + 2 + size)
    at = lineEnd + 2 + size + 2
  }
}

describe('a response that is cut short', () => {
  for (const how of ['FIN', 'RST'] as const) {
    for (const { name, send } of CUT) {
      for (const isOld of [false, true]) {
        it(`is cut for the application too, ${how}, ${isOld ? 'HTTP/1.0' : 'HTTP/1.1'}: ${name}`, async () => {
          const client = bench.client()
          await client.send(isOld ? OLD : GET)
          const wire = await bench.upstream.wire()
          await wire.request()
          await wire.send(send)
          const isInBody = /^HTTP\/1\.1 200 OK\r\n(?:.+\r\n)*\r\n/.test(send)
          // A reset takes what is under way with it, so the application has the head first.
          if (isInBody && how === 'RST') await client.has('\r\n\r\n')
          if (how === 'FIN') wire.end()
          else wire.reset()
          await client.until('the end', () => client.isOver || client.text.endsWith('}\n'))
          if (!isInBody) {
            isProblem(client.text, 'upstream_reset')
            return
          }
          await client.over()
          assert.match(client.text, /^HTTP\/1\.1 200 OK\r\n/)
          assert.doesNotMatch(client.text, /\r\n0\r\n\r\n$/)
          const [, length] = /\r\nContent-Length: (\d+)\r\n/.exec(client.text) ?? []
          const content = client.text.slice(client.text.indexOf('\r\n\r\n') + 4)
          assert.doesNotMatch(content, /HTTP\/1\.1|ambassador/)
          if (length !== undefined) assert.ok(content.length < Number(length))
          else if (isOld) assert.equal(await client.closed(), 'ECONNRESET', 'nothing else tells it')
        })
      }
    }
    for (const { name, send } of ENDLESS) {
      for (const isOld of [false, true]) {
        it(`up to the end of the connection, ${how}, ${isOld ? 'HTTP/1.0' : 'HTTP/1.1'}: ${name}`, async () => {
          const client = bench.client()
          await client.send(isOld ? OLD : GET)
          const wire = await bench.upstream.wire()
          await wire.request()
          await wire.send(send)
          const content = send.slice(send.indexOf('\r\n\r\n') + 4)
          await client.has('\r\n\r\n')
          if (how === 'FIN') wire.end()
          else wire.reset()
          if (how === 'FIN') {
            await client.until('the end', () => client.isOver || client.text.endsWith('0\r\n\r\n'))
            if (isOld) {
              assert.equal(client.text.slice(client.text.indexOf('\r\n\r\n') + 4), content)
              client.end()
              assert.equal(await client.closed(), null)
            } else {
              assert.match(client.text, /0\r\n\r\n$/)
              assert.ok(dechunked(client.text).endsWith(`\r\n\r\n${content}0\r\n\r\n`))
            }
            return
          }
          await client.over()
          assert.doesNotMatch(client.text, /\r\n0\r\n\r\n$/)
          if (isOld) assert.equal(await client.closed(), 'ECONNRESET')
        })
      }
    }
  }
})

it('leaves no request and no connection behind', () => bench.idle())
