import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, it } from 'node:test'
import { OAuth2Source } from '../../../../proxy/auth/oauth2.ts'
import { TokenCredential } from '../../../../proxy/auth/token-credential.ts'
import { NO_GUARD } from '../../../../proxy/policy/dial-guard.ts'

interface Issuer {
  readonly url: URL
  readonly seen: { headers: IncomingMessage['headers']; body: string }[]
  answer: () => { status: number; body: string } | Promise<{ status: number; body: string }>
  close(): void
}

const open: { close(): void }[] = []
afterEach(() => {
  for (const thing of open.splice(0)) thing.close()
})

async function issuer(answer: Issuer['answer']): Promise<Issuer> {
  const seen: Issuer['seen'] = []
  const it: Issuer = { url: new URL('http://localhost/'), seen, answer, close: () => server.closeAllConnections() }
  const server: Server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    seen.push({ headers: request.headers, body })
    const { status, body: text } = await it.answer()
    response.writeHead(status).end(text)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  open.push({
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  })
  return Object.assign(it, { url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/token`) })
}

let count = 0
const good = (seconds = 3600) => ({
  status: 200,
  body: JSON.stringify({ access_token: `token-${++count}`, expires_in: seconds, token_type: 'Bearer' }),
})

function source(at: URL, clientSecret = () => 's:e cret') {
  return new OAuth2Source({
    guard: () => NO_GUARD,
    tokenUrl: at,
    clientId: 'shop',
    clientSecret,
    scopes: ['a', 'b'],
    audience: 'pay',
    context: () => null,
  })
}

function credential(
  at: URL,
  on: { failure?: (m: string) => void; token?: (ms: number) => void } = {},
): TokenCredential {
  const it = new TokenCredential({ source: source(at), onFailure: on.failure, onToken: on.token, random: () => 0.5 })
  open.push({ close: () => it.stop() })
  it.start()
  return it
}

const settled = (it: TokenCredential) => new Promise<void>((resolve) => it.whenSettled(resolve))

describe('the OAuth 2.0 client credentials of an upstream', () => {
  it('are asked for with the encoded client credentials, the scopes and the audience', async () => {
    const server = await issuer(() => good())
    const it = credential(server.url)
    await settled(it)
    assert.equal(it.line?.toString(), `Authorization: Bearer token-${count}\r\n`)
    const [request] = server.seen
    assert.equal(request?.headers.authorization, `Basic ${Buffer.from('shop:s%3Ae+cret').toString('base64')}`)
    assert.equal(request?.body, 'grant_type=client_credentials&scope=a+b&audience=pay')
  })

  it('are fetched once for any number of requests that are refused together', async () => {
    const server = await issuer(() => good())
    const it = credential(server.url)
    await settled(it)
    const first = it.line as Buffer
    const waits = Array.from({ length: 1000 }, () => it.refused(first))
    assert.ok(
      waits.every((isComing) => isComing),
      'each waits for the one fetch',
    )
    await settled(it)
    assert.equal(server.seen.length, 2)
    assert.notEqual(it.line?.toString(), first.toString())
    assert.equal(it.refused(first), false, 'the refused line has been replaced')
  })

  it('are renewed before they end and served until they do while the issuer is down', async () => {
    let isDown = false
    const server = await issuer(() => (isDown ? { status: 500, body: '{}' } : good(0.4)))
    const failures: string[] = []
    let failed = Promise.withResolvers<void>()
    const it = credential(server.url, {
      failure: (message) => {
        failures.push(message)
        failed.resolve()
      },
    })
    await settled(it)
    isDown = true
    await failed.promise
    assert.notEqual(it.line, null, 'renewal failed, the token lives on')
    assert.equal(it.failure, null)
    while (it.line !== null) {
      failed = Promise.withResolvers<void>()
      await failed.promise
    }
    assert.match(it.failure ?? '', /answered 500 \(no error code\), check clientId, clientSecret, scopes and audience$/)
    isDown = false
    const renewed = Promise.withResolvers<void>()
    server.answer = () => {
      renewed.resolve()
      return good()
    }
    await renewed.promise
    await settled(it)
    assert.notEqual(it.line, null)
  })

  const bad: { title: string; status: number; body: string; message: RegExp }[] = [
    {
      title: 'an error',
      status: 401,
      body: '{"error":"invalid_client","error_description":"s:e cret"}',
      message: /answered 401 \(invalid_client\), check/,
    },
    { title: 'an empty answer', status: 200, body: '{}', message: /answered 200 without an access_token/ },
    { title: 'something that is not JSON', status: 200, body: '<html>', message: /answered 200 without JSON/ },
    {
      title: 'a token with a line break',
      status: 200,
      body: '{"access_token":"a\\r\\nX: y"}',
      message: /not a bearer token/,
    },
    {
      title: 'another type of token',
      status: 200,
      body: '{"access_token":"a","token_type":"mac"}',
      message: /token type 'mac' is not supported/,
    },
    {
      title: 'a token that has expired',
      status: 200,
      body: '{"access_token":"a","expires_in":0}',
      message: /already expired/,
    },
  ]
  for (const { title, status, body, message } of bad) {
    it(`are not available after ${title}, and the message tells no secret`, async () => {
      const server = await issuer(() => ({ status, body }))
      const it = credential(server.url)
      await settled(it)
      assert.equal(it.line, null)
      assert.match(it.failure ?? '', message)
      assert.doesNotMatch(it.failure ?? '', /s:e cret|s%3Ae/)
    })
  }

  it('are not available while the Secret is missing, with the words of the reference', async () => {
    const missing = new TokenCredential({
      source: source(new URL('http://127.0.0.1:1/'), () => {
        throw new Error("Secret 'idp', key 'secret' is missing")
      }),
    })
    open.push({ close: () => missing.stop() })
    missing.start()
    await settled(missing)
    assert.match(missing.failure ?? '', /Secret 'idp', key 'secret' is missing/)
  })
})
