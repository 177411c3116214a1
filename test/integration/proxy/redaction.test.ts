/** Secrets in every place where the sidecar can meet one, looked for in everything that it says. New secrets for each run. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import { Env } from '../../../common/names.ts'
import { tokenName } from '../../../common/object-names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { Hidden } from '../../helpers/hidden.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { OtlpCollector } from '../../helpers/otlp-collector.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes } from '../../helpers/volume.ts'

const ends = endsOfAll()

const hidden = new Hidden()
const hide = (place: string) => hidden.hide(place)

function jwt(secret: string): string {
  const encode = (text: string) => Buffer.from(text).toString('base64url')
  return `${encode('{"alg":"none"}')}.${encode(`{"exp":${Math.floor(Date.now() / 1000) + 3600}}`)}.${secret}`
}

describe('a secret', () => {
  it('is in nothing that the sidecar says, wherever it was hidden', async () => {
    const volumes = new Volumes()
    ends.push(() => volumes.remove())
    const gone = hide('header of an upstream that answers badly')
    const collector = await new OtlpCollector().start(ends)
    let slow = 0
    const upstream = await scriptedUpstream(ends, ({ target, socket, field }) => {
      // The copy for the mirror, which has the field, may come first.
      if (target.startsWith('/slow'))
        return field('X-Key') === null && slow++ === 0 ? null : ok(hidden.at('body of a second try'))
      if (target.startsWith('/malformed')) return `HTTP/1.1 200 OK\r\nX-Bad ${gone}\r\n\r\n`
      if (target.startsWith('/status')) return `HTTP/9.9 ${hidden.at('status line of an upstream')}\r\n\r\n`
      if (target.startsWith('/cut')) {
        socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n${hidden.at('body that is cut')}`)
        return null
      }
      if (target.startsWith('/401')) {
        return withStatus(
          401,
          hidden.at('body of a 401'),
          `WWW-Authenticate: Basic realm="${hidden.at('challenge of an upstream')}"`,
        )
      }
      return withStatus(500, hidden.at('body of a 500'), `Set-Cookie: id=${hidden.at('Set-Cookie of an upstream')}`)
    })
    for (const place of [
      'status line of an upstream',
      'body that is cut',
      'body of a 401',
      'body of a second try',
      'challenge of an upstream',
      'body of a 500',
      'Set-Cookie of an upstream',
    ])
      hide(place)
    const issuedToken = hide('token of an issuer')
    const description = hide('error_description of an issuer')
    const page = hide('error page of an issuer')
    const code = hide('error code of an issuer that is none')
    const kind = hide('token with a line break of an issuer')
    const issuer = await scriptedUpstream(ends, ({ target }) => {
      if (target.startsWith('/good')) return ok(JSON.stringify({ access_token: issuedToken, expires_in: 60 }))
      if (target.startsWith('/description'))
        return withStatus(400, JSON.stringify({ error: 'invalid_client', error_description: description }))
      if (target.startsWith('/code')) return withStatus(400, JSON.stringify({ error: `no code ${code}` }))
      if (target.startsWith('/break')) return ok(JSON.stringify({ access_token: `a\r\n${kind}` }))
      return withStatus(500, `<html>${page}`)
    })
    const google = hide('ID token of Google')
    const metadata = await scriptedUpstream(ends, () => ok(jwt(google), 'Metadata-Flavor: Google'))

    const key = (name: string) => ({ secretKeyRef: { name, key: 'value' } })
    const secret = (name: string, value: string) => volumes.secret(name, { value })
    secret('bearer', `${hide('bearer token')}\n`)
    volumes.secret('basic', { username: 'user', password: hide('basic password') })
    secret('header', hide('header value'))
    secret('client', hide('client secret'))
    secret('broken-bearer', `${hide('first line of a broken token')}\n${hide('second line of a broken token')}`)
    secret('broken-header', `${hide('value with a NUL')}\0`)
    volumes.secret('broken-basic', {
      username: `${hide('user name with a colon')}:x`,
      password: hide('password of a broken pair'),
    })
    volumes.secret('broken-tls', {
      'tls.crt': `-----BEGIN CERTIFICATE-----\n${hide('broken certificate')}\n-----END CERTIFICATE-----\n`,
      'tls.key': `-----BEGIN PRIVATE KEY-----\n${hide('broken private key')}\n-----END PRIVATE KEY-----\n`,
    })
    volumes.secret('broken-ca', {
      ca: `-----BEGIN PRIVATE KEY-----\n${hide('private key in a CA bundle')}\n-----END PRIVATE KEY-----\n`,
    })
    volumes.token(tokenName('vault', 3600), jwt(hide('token of the service account')))
    volumes.configMap('endpoints', {
      list: `127.0.0.1:${upstream.port}\nuser:${hide('password in a list of endpoints')}@host:80\n`,
    })
    const oauth2 = (path: string) => ({
      oauth2ClientCredentials: {
        tokenUrl: `http://127.0.0.1:${issuer.port}${path}?key=${hide(`query of the token URL ${path}`)}`,
        clientId: 'shop',
        clientSecret: key('client'),
      },
    })
    const endpoints = [{ host: '127.0.0.1', port: upstream.port }]
    const upstreams: Record<string, object> = {
      bearer: { endpoints, auth: { bearer: key('bearer') } },
      basic: { endpoints, auth: { basic: { secretName: 'basic' } } },
      header: { endpoints, auth: { header: { name: 'X-Key', ...key('header') } } },
      oauth2: { endpoints, auth: oauth2('/good') },
      'oauth2-description': { endpoints, auth: oauth2('/description') },
      'oauth2-page': { endpoints, auth: oauth2('/page') },
      'oauth2-code': { endpoints, auth: oauth2('/code') },
      'oauth2-break': { endpoints, auth: oauth2('/break') },
      account: { endpoints, auth: { serviceAccountToken: { audience: 'vault' } } },
      google: { endpoints, auth: { gcpIdToken: { audience: 'a' } } },
      aws: { endpoints, auth: { awsSigV4: { service: 'execute-api', region: 'eu-west-1' } } },
      'broken-bearer': { endpoints, auth: { bearer: key('broken-bearer') } },
      'broken-header': { endpoints, auth: { header: { name: 'X-Key', ...key('broken-header') } } },
      'broken-basic': { endpoints, auth: { basic: { secretName: 'broken-basic' } } },
      'broken-tls': {
        endpoints,
        tls: {
          clientCertificate: { secretName: 'broken-tls' },
          ca: { secretKeyRef: { name: 'broken-ca', key: 'ca' } },
        },
      },
      traced: { endpoints, auth: { basic: { secretName: 'basic' } } },
      'traced-by-header': {
        fromHeader: { name: 'X-Upstream-Host', allowed: ['127.0.0.1'] },
        auth: { bearer: key('bearer') },
      },
      'broken-list': { file: { configMapKeyRef: { name: 'endpoints', key: 'list' } } },
    }
    const tracing = { otlpEndpoint: collector.url, sample: '100%' }
    const more: Record<string, { upstreams?: object[]; [field: string]: unknown }> = {
      traced: {
        tracing,
        upstreams: [{ name: 'shadow', endpoints, auth: { header: { name: 'X-Key', ...key('header') } } }],
        routes: [{ match: {}, to: [{ upstream: 'live' }], mirror: { upstream: 'shadow' } }],
        // What fails is tried again, and told in events of the span.
        retry: { maxRetries: 1, on: ['Reset', '5xx'], methods: 'All', hedge: { after: '50ms' } },
        timeouts: { request: '30s' },
      },
      'traced-by-header': { tracing, timeouts: { request: '30s' } },
    }
    const ports = new Map<string, number>()
    for (const [name, upstream] of Object.entries(upstreams)) {
      const port = await freePort()
      ports.set(name, port)
      const spec = {
        protocol: 'HTTP',
        listen: { port },
        timeouts: { connect: '500ms', request: '2s' },
        accessLog: { mode: 'All' },
        ...more[name],
        upstreams: [{ name: 'live', ...upstream }, ...(more[name]?.upstreams ?? [])],
      }
      const { config, problems } = render({ ambassador: { metadata: { name }, spec } as unknown as Ambassador })
      assert.ok(config !== null, JSON.stringify(problems))
      volumes.config(name, config)
    }
    const proxy = await ProxyProcess.start({
      ...volumes.env([...ports.keys()].join()),
      [Env.logLevel]: 'debug',
      [Env.readiness]: 'UpstreamHealthy',
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: hide('secret key of AWS'),
      AWS_SESSION_TOKEN: hide('session token of AWS'),
      AWS_EC2_METADATA_DISABLED: 'true',
      GCE_METADATA_HOST: `127.0.0.1:${metadata.port}`,
      CLOUDSDK_CONFIG: '/nonexistent',
      UNUSED_VARIABLE: hide('variable that nobody asked for'),
    })
    ends.push(() => proxy.end())
    await proxy.line(
      () => proxy.log.filter(({ msg }) => String(msg).startsWith('config in force')).length === ports.size,
    )

    let said = ''
    let requests = 0
    /** Sends bytes; keeps the answer when it is the sidecar's own. */
    const send = async (name: string, text: string): Promise<void> => {
      const client = new HttpTestClient({ port: ports.get(name) as number })
      ends.push(() => client.socket.destroy())
      requests++
      const answer = await client
        .write(text)
        .response()
        .catch(() => null)
      if (answer?.field('X-Ambassador-Reason') != null) said += JSON.stringify(answer.fields) + answer.body
      client.socket.destroy()
    }
    const fields = [
      'Authorization',
      'Cookie',
      'Proxy-Authorization',
      'X-Api-Key',
      'Baggage',
      'Referer',
      'X-Amz-Security-Token',
    ]
      .map((name) => `${name}: ${hide(`${name} of the application`)}\r\n`)
      .join('')
    const body = hide('body of a request')
    const query = hide('query of a request')
    const trace = randomBytes(16).toString('hex')
    const toHost = `X-Upstream-Host: 127.0.0.1:${upstream.port}\r\n`
    for (const name of ports.keys()) {
      for (const path of ['/', '/malformed', '/status', '/401']) {
        await send(
          name,
          `POST ${path}?token=${query} HTTP/1.1\r\nHost: x\r\n${fields}${toHost}traceparent: 00-${trace}-00f067aa0ba902b7-01\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
      }
    }
    await send('bearer', `GET /cut HTTP/1.1\r\nHost: x\r\n\r\n`)
    await send('bearer', `GET http://user:${hide('user info of a target')}@x/ HTTP/1.1\r\nHost: x\r\n\r\n`)
    await send('bearer', `GET / HTTP/1.1\r\nHost: ${hide('Host that is none')}@\r\n\r\n`)
    await send('bearer', `GET / HTTP/1.1\r\nHost: x\r\nX ${hide('field that is none')}\r\n\r\n`)
    await send('bearer', `${hide('request line that is none')}\r\n\r\n`)
    await send(
      'bearer',
      `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${hide('chunk that is none')}\r\n`,
    )
    await send('bearer', `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${hide('length that is none')}\r\n\r\n`)
    const traced = ['traced', 'traced-by-header']
    for (const name of traced) {
      await send(name, `GET /cut?${query} HTTP/1.1\r\nHost: x\r\n${toHost}${fields}\r\n`)
      await send(name, `GET http://user:${hide(`user info to ${name}`)}@x/ HTTP/1.1\r\nHost: x\r\n${toHost}\r\n`)
      await send(name, `GET / HTTP/1.1\r\nHost: ${hide(`Host to ${name} that is none`)}@\r\n${toHost}\r\n`)
    }
    const user = `X-Upstream-Host: user:${hide('user info of a host in a header')}@127.0.0.1:${upstream.port}\r\n`
    await send('traced-by-header', `GET / HTTP/1.1\r\nHost: x\r\n${user}\r\n`)
    await send('traced', `GET /slow?${query} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`)
    // Four of the loop and the one that is cut for each, and the slow one.
    await collector.collected(2 * 5 + 1)
    for (const path of ['/metrics', '/configz', '/readyz', `/nothing?${hide('query to telemetry')}`])
      said += (await proxy.get(path)).body
    for (const path of ['/', '/upstreams', `/nothing?${hide('query to administration')}`])
      said += (await proxy.admin('GET', path)).body
    // A Secret that becomes unusable while it is in use is told of, too.
    proxy.forget()
    secret('bearer', `${hide('rotated into a broken one')}\n${hide('second line of what was rotated')}`)
    volumes.token(tokenName('vault', 3600), `${hide('broken token of the account')}\n\n`)
    const stateOf = (text: string) => {
      const { refs } = JSON.parse(text).ambassadors.find(({ name }: { name: string }) => name === 'bearer')
      return refs[0].state
    }
    let configz = ''
    do configz = (await proxy.get('/configz')).body
    while (stateOf(configz) !== 'Invalid')
    said += configz
    assert.match(said, /has a line break inside/)
    proxy.kill('SIGINT')
    await proxy.exit
    assert.match(said, /^ambassador_hedges_total\{.*outcome="won".*\} [1-9]/m)
    assert.match(said, /^ambassador_mirrored_total\{.*outcome="sent".*\} [1-9]/m)
    assert.deepEqual(collector.problems, [])
    for (const name of traced) assert.ok(collector.spans.some((span) => span.attributes['ambassador.name'] === name))
    assert.ok(collector.spans.some(({ events }) => events.length > 0))
    assert.ok(collector.spans.some(({ attributes }) => /\/malformed$/.test(String(attributes['url.full']))))
    said += JSON.stringify(collector.requests)

    assert.ok(hidden.size >= 30, `${hidden.size} places`)
    assert.ok(requests > 60)
    assert.match(said, /auth_unavailable/)
    assert.deepEqual(hidden.shownIn(said), [])
    assert.deepEqual(hidden.shownIn(proxy.stdout + proxy.stderr), [])
  })

  it('would be found plainly, and in base64 wherever it begins there', () => {
    const secret = hide('a place of this test')
    for (const before of ['', 'a', 'ab', 'user:']) {
      assert.deepEqual(hidden.shownIn(Buffer.from(before + secret).toString('base64')), ['a place of this test'])
    }
    assert.deepEqual(hidden.shownIn(`x${secret}x`), ['a place of this test'])
  })
})
