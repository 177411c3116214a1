/** The codec documents once more, through the whole proxy on real sockets: what is refused reaches nobody, what passes passes. */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { codecDocuments } from '../../helpers/codec-documents.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, type ScriptedUpstream, scriptedUpstream } from '../../helpers/http-upstream.ts'

const ends = endsOfAll()
let upstream: ScriptedUpstream
let proxy: Awaited<ReturnType<typeof httpProxy>>
let answer: Buffer | string = ok()
let endsWithFin = false

before(async () => {
  upstream = await scriptedUpstream(ends, ({ socket }) => {
    if (endsWithFin) setImmediate(() => socket.end())
    return answer
  })
  proxy = await httpProxy({ ports: [upstream.port], timeouts: { idleMs: 3000, requestMs: 20_000 } }, ends)
})

for (const { file, cases } of codecDocuments('http1')) {
  describe(file, () => {
    for (const { title, blocks } of cases) {
      const find = (kind: string) => blocks.find((block) => block.kind === kind)
      const request = find('request')
      const response = find('response')
      const refused = find('refused')
      if (request !== undefined && refused !== undefined) {
        it(`${title}: is refused, the connection closes, and no whole request reaches the upstream`, async () => {
          const seen = upstream.requests.length
          const client = proxy.connect().write(request.bytes)
          const received = await client.response()
          assert.equal(received.status, Number(refused.bytes.toString().slice(0, 3)))
          assert.equal(received.field('connection'), 'close')
          assert.equal(received.field('x-ambassador-reason'), 'bad_request')
          assert.equal(JSON.parse(received.body).detail, refused.bytes.toString().slice(4))
          await client.tcp.ended()
          assert.equal(upstream.requests.length, seen)
        })
      } else if (request !== undefined && find('incomplete') === undefined && !request.options.includes('credential')) {
        it(`${title}: reaches the upstream`, async () => {
          answer = ok()
          endsWithFin = false
          const expected = find('upstream')!.bytes.toString('latin1')
          const seen = upstream.requests.length
          const client = proxy.connect().write(request.bytes)
          const count = expected.split(/^[A-Za-z]+ .* HTTP\/1\.1\r\n/m).length - 1
          await upstream.request(seen + count - 1)
          const sent = upstream.requests.slice(seen).map(({ head, body }) => head + body)
          const host = `127.0.0.1:${upstream.port}`
          const id = '00000000-0000-7000-8000-000000000000'
          const plain = sent.join('').replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}/g, id)
          assert.equal(plain.replaceAll(host, 'upstream.example'), expected)
          client.socket.destroy()
        })
      } else if (response !== undefined) {
        it(`${title}: ${refused === undefined ? 'reaches the client' : 'is not passed on as a whole answer'}`, async () => {
          const has = (option: string): boolean => response.options.includes(option)
          answer = response.bytes
          endsWithFin = has('fin')
          const method = has('head') ? 'HEAD' : 'GET'
          const old = has('closes') ? '' : 'Connection: keep-alive\r\n'
          const now = has('closes') ? 'Connection: close\r\n' : ''
          const start = has('old') ? `${method} / HTTP/1.0\r\n${old}` : `${method} / HTTP/1.1\r\nHost: a\r\n${now}`
          const client = proxy.connect().write(`${start}\r\n`)
          if (refused === undefined) {
            const expected = find('client')!.bytes.toString('latin1')
            assert.equal(await client.tcp.read(expected.length), expected)
            const isCut = find('incomplete') !== undefined
            if (isCut) assert.equal(await client.tcp.ended(), expected)
          } else if (find('client') === undefined) {
            const received = await client.response()
            assert.equal(received.status, 502)
            assert.match(received.field('proxy-status')!, /http_protocol_error/)
            assert.ok(JSON.parse(received.body).detail.endsWith(refused.bytes.toString().slice(4)))
          } else {
            // In one read with the head the fault is known in time for a 502; behind it the answer is cut.
            const text = await Promise.race([
              client.tcp.ended(),
              client.response().then(({ status }) => String(status)),
            ])
            assert.ok(text === '502' || !/\r\n0\r\n\r\n$/.test(text), text)
          }
          client.socket.destroy()
        })
      }
    }
  })
}
