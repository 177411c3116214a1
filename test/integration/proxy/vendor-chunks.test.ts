/** The vendors' libraries in the bundled sidecar: files of their own, read by whoever needs them and by nobody else. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { TLSSocket } from 'node:tls'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { Env } from '../../../common/names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { built } from '../../helpers/built.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { tcpServer } from '../../helpers/tcp.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** Words that only the libraries of Google, AWS and Azure have. */
const LIBRARIES = ['/computeMetadata/v1', 'AWS_WEB_IDENTITY_TOKEN_FILE', 'rds-db', 'AZURE_FEDERATED_TOKEN_FILE']

/** Tells the test, in a line of the log for each, which files Node reads as modules. */
const HOOK = `
const { registerHooks } = require('node:module')
registerHooks({
  load(url, context, next) {
    process.stdout.write(JSON.stringify({ msg: 'module', url }) + '\\n')
    return next(url, context)
  },
})
`

describe('the bundled sidecar', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-vendors-'))
  const ends: (() => unknown)[] = []
  let dist = ''

  before(async () => {
    dist = (await built()).dist
    writeFileSync(join(directory, 'hook.cjs'), HOOK)
  })
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end()
  })
  after(() => rmSync(directory, { recursive: true, force: true }))

  /** Runs it with this auth, and sends one request through it. */
  async function through(auth: object | undefined, env: Readonly<Record<string, string>> = {}) {
    const upstream = await scriptedUpstream(ends, (request) => ok(request.field('authorization') ?? 'none'))
    const live = { name: 'live', endpoints: [{ host: '127.0.0.1', port: upstream.port }], ...(auth && { auth }) }
    const { proxy, port } = await sidecar({ protocol: 'HTTP', upstreams: [live] }, env)
    const answer = await fetch(`http://127.0.0.1:${port}/`)
    return { status: answer.status, body: await answer.text(), files: await filesOf(proxy) }
  }

  /** Logs in by this at a server of TLS that asks for a password, and says which one came. */
  async function loginBy(proof: object, env: Readonly<Record<string, string>>) {
    const pki = new Pki()
    ends.push(() => pki.remove())
    const authority = pki.authority()
    const leaf = authority.issue({ names: ['127.0.0.1'] })
    const came = Promise.withResolvers<string>()
    const server = await tcpServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write('S')
        const tls = new TLSSocket(socket, { isServer: true, cert: leaf.cert, key: leaf.key })
        tls.on('error', () => {})
        tls.once('data', () => {
          tls.write(Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3]))
          tls.once('data', (message: Buffer) => came.resolve(message.toString('latin1', 5, message.length - 1)))
        })
      })
    })
    ends.push(() => server.close())
    const secrets = mkdtempSync(join(directory, 'secrets-'))
    mkdirSync(join(secrets, 'ca'))
    writeFileSync(join(secrets, 'ca/ca.crt'), authority.cert)
    const primary = {
      name: 'primary',
      endpoints: [{ host: '127.0.0.1', port: server.port }],
      tls: { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } },
      auth: { postgres: { username: 'orders', ...proof } },
    }
    const spec = { protocol: 'PostgreSQL', upstreams: [primary] }
    const { proxy, port } = await sidecar(spec, { ...env, [Env.secretsDir]: secrets })
    const client = connect(port, '127.0.0.1')
    ends.push(() => client.destroy())
    const startup = Buffer.from('\0\0\0\x10\0\x03\0\0user\0a\0\0', 'latin1')
    startup[3] = startup.length
    client.write(startup)
    return { password: await came.promise, files: await filesOf(proxy) }
  }

  /** Files of the bundle that were read as modules; ends the process, so that nothing of what it wrote is still on its way. */
  const filesOf = async (proxy: ProxyProcess): Promise<string[]> => {
    await proxy.end()
    return proxy.log
      .filter(({ msg }) => msg === 'module')
      .map(({ url }) => String(url))
      .filter((url) => url.startsWith('file:') && url.endsWith('.mjs'))
      .map((url) => url.split('/').at(-1) ?? '')
  }

  async function sidecar(given: object, env: Readonly<Record<string, string>>) {
    const port = await freePort()
    const spec = { ...given, listen: { port } }
    const { config } = render({ ambassador: { metadata: { name: 'payments' }, spec } as unknown as Ambassador })
    const configs = mkdtempSync(join(directory, 'config-'))
    mkdirSync(join(configs, 'payments'))
    writeFileSync(join(configs, 'payments/config.json'), JSON.stringify(config))
    const { flags, env: ofImage } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
    const proxy = await ProxyProcess.start(
      { ...ofImage, ...env, [Env.ambassadors]: 'payments', [Env.configDir]: configs },
      [...flags, '--require', join(directory, 'hook.cjs'), join(dist, 'proxy.mjs')],
    )
    ends.push(() => proxy.end())
    await proxy.ready()
    return { proxy, port }
  }

  /** Files of the bundle that hold this text. */
  const holding = (text: string): string[] =>
    readdirSync(dist).filter(
      (name) => name.startsWith('proxy') && readFileSync(join(dist, name), 'utf8').includes(text),
    )

  it('reads nothing of a vendor when no config asks for it', async () => {
    for (const text of LIBRARIES) assert.ok(holding(text).length > 0, `the library with '${text}' is not in the bundle`)
    const { status, files } = await through(undefined)
    assert.equal(status, 200)
    assert.deepEqual(
      files.filter((name) => name !== 'proxy.mjs' && !/^proxy-rolldown-runtime-/.test(name)),
      [],
    )
  })

  it("reads Google's library and gets a token by it when a config asks for one", async () => {
    const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
    const token = `${encode({ alg: 'none' })}.${encode({ exp: Math.floor(Date.now() / 1000) + 3600 })}.c2lnbmVk`
    // An imitation of the metadata server.
    const metadata = await scriptedUpstream(ends, () => ok(token, 'Metadata-Flavor: Google'))
    const env = { GCE_METADATA_HOST: `127.0.0.1:${metadata.port}`, CLOUDSDK_CONFIG: '/nonexistent' }
    const { status, body, files } = await through({ gcpIdToken: { audience: 'https://a.example/' } }, env)
    assert.deepEqual([status, body], [200, `Bearer ${token}`])
    for (const vendor of holding('/computeMetadata/v1')) assert.ok(files.includes(vendor), vendor)
  })

  it('reads the library of AWS and signs with the keys that it finds when a config asks for that', async () => {
    const env = { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret', AWS_EC2_METADATA_DISABLED: 'true' }
    const { status, body, files } = await through({ awsSigV4: { service: 'execute-api', region: 'eu-west-1' } }, env)
    assert.equal(status, 200)
    assert.match(
      body,
      /^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE\/\d{8}\/eu-west-1\/execute-api\/aws4_request, SignedHeaders=/,
    )
    assert.ok(files.length > 1, files.join())
  })

  it('reads the library of Azure and logs in by its token when a config asks for that', async () => {
    const token = { access_token: 'eyJ.azure', expires_on: String(Math.floor(Date.now() / 1000) + 3600) }
    // An imitation of the endpoint of a managed identity.
    const identity = await scriptedUpstream(ends, () => ok(JSON.stringify(token), 'content-type: application/json'))
    const env = { IDENTITY_ENDPOINT: `http://127.0.0.1:${identity.port}/token`, IDENTITY_HEADER: 'h' }
    const { password, files } = await loginBy({ azureEntra: {} }, env)
    assert.equal(password, 'eyJ.azure')
    assert.ok(files.length > 1, files.join())
  })

  it('reads the library of AWS and logs in by its token when a config asks for that', async () => {
    const env = { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret', AWS_EC2_METADATA_DISABLED: 'true' }
    const { password } = await loginBy({ awsRdsIam: { region: 'eu-west-1' } }, env)
    assert.match(password, /^127\.0\.0\.1:\d+\/\?Action=connect&DBUser=orders&X-Amz-Algorithm=AWS4-HMAC-SHA256/)
  })
})
