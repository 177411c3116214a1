/** Tokens in place of a password: a real PostgreSQL with TLS stands for the databases of the clouds, and imitations for their issuers. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import pg from 'pg'
import { parseDocuments } from '../../../cli/documents.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { passwordServer } from '../../helpers/ldap.ts'
import { Pki } from '../../helpers/pki.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, type PostgresServer, postgresServer } from '../../helpers/postgres.ts'
import { MountedFiles, postgresProxy } from '../../helpers/postgres-proxy.ts'

const pki = new Pki()
const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
const ends: (() => unknown)[] = []
let database: PostgresServer
let authorityPem = ''
/** Whether what came as a password is a token that is to be accepted. */
let accepts: (password: string) => boolean = () => false
/** What came as a password. */
const passwords: string[] = []
/** Names with which a password came, of all tests. */
const users = new Set<string>()

before(async () => {
  const authority = pki.authority()
  authorityPem = authority.cert
  mounts.put('configMaps', 'ca', 'ca.crt', authority.cert)
  const ldap = await passwordServer((name, password) => {
    users.add(name)
    passwords.push(password)
    return accepts(password)
  }, lasting)
  const hba = [
    `hostssl all orders,nobody,"orders@my-project.iam" 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport=${ldap.port} ldapprefix="cn=" ldapsuffix=""`,
    `hostssl all ${POSTGRES_USER} 127.0.0.1/32 scram-sha-256`,
  ]
  database = await postgresServer({ tls: authority.issue({ names: ['localhost'] }), hba }, lasting)
  const ssl = { ca: authority.cert, servername: 'localhost' }
  const server = { host: '127.0.0.1', port: database.port, ssl }
  const admin = new pg.Client({ ...server, user: POSTGRES_USER, password: POSTGRES_PASSWORD })
  await admin.connect()
  await admin.query('create role orders login; create role "orders@my-project.iam" login')
  await admin.end()
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  pki.remove()
  mounts.remove()
})
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
  passwords.length = 0
  for (const name of VARIABLES) delete process.env[name]
})

/** By which the vendors' libraries find an issuer. */
const VARIABLES = [
  'AWS_ACCESS_KEY_ID',
  'AWS_SECRET_ACCESS_KEY',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
  'GCE_METADATA_HOST',
  'IDENTITY_ENDPOINT',
  'IDENTITY_HEADER',
] as const
process.env['AWS_EC2_METADATA_DISABLED'] = 'true'
process.env['CLOUDSDK_CONFIG'] = '/nonexistent'
delete process.env['GOOGLE_APPLICATION_CREDENTIALS']

type Proof =
  | { awsRdsIam: { region: string } }
  | { gcpCloudSqlIam: Record<string, never> }
  | { azureEntra: Record<string, never> }

/** As an example has it, with this machine in place of the cloud's. */
function example(name: string, ca: string) {
  const path = join(import.meta.dirname, '../../../examples', name, 'ambassador.yaml')
  const { spec } = parseDocuments(readFileSync(path, 'utf8'), path)[0]!.value as Ambassador
  const [upstream] = spec.upstreams
  assert.equal(upstream?.endpoints?.length, 1)
  const { key } = upstream.tls?.ca?.configMapKeyRef ?? { key: '' }
  mounts.put('configMaps', ca, key, authorityPem)
  return postgresProxy(
    { upstreams: [{ ...upstream, endpoints: [{ host: 'localhost', port: database.port }] }] },
    mounts,
    ends,
  )
}

function proxy(proof: Proof) {
  const upstream = {
    name: 'primary',
    endpoints: [{ host: 'localhost', port: database.port }],
    tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } } },
    auth: { postgres: { username: 'orders', ...proof } },
  }
  return postgresProxy({ upstreams: [upstream] }, mounts, ends)
}

async function who(options: pg.ClientConfig): Promise<string> {
  const client = new pg.Client(options)
  await client.connect()
  try {
    return (await client.query('select current_user::text as who')).rows[0].who
  } finally {
    await client.end()
  }
}

const refusal = (options: pg.ClientConfig): Promise<pg.DatabaseError> =>
  who(options).then(
    () => assert.fail('let in'),
    (error: pg.DatabaseError) => error,
  )

describe('a token of RDS (a PostgreSQL with TLS stands for RDS)', () => {
  it('is signed for host, port and user', async () => {
    process.env['AWS_ACCESS_KEY_ID'] = 'AKIDEXAMPLE'
    process.env['AWS_SECRET_ACCESS_KEY'] = 'wJalrXUtnFEMI'
    accepts = (token) => {
      const url = new URL(`https://${token}`)
      const given = Object.fromEntries(url.searchParams)
      return (
        url.host === `localhost:${database.port}` &&
        given['Action'] === 'connect' &&
        given['DBUser'] === 'orders' &&
        given['X-Amz-Expires'] === '900' &&
        given['X-Amz-Credential']?.endsWith('/eu-west-1/rds-db/aws4_request') === true &&
        /^[0-9a-f]{64}$/.test(given['X-Amz-Signature'] ?? '')
      )
    }
    const { options, compiler } = await proxy({ awsRdsIam: { region: 'eu-west-1' } })
    assert.equal(await who(options), 'orders')
    await Promise.all([who(options), who(options)])
    assert.equal(passwords.length, 3)
    const left = (compiler.clusters[0]?.login?.expiresAt ?? 0) - Date.now()
    assert.ok(left > 600_000 && left <= 900_000, `${left}`)
  })

  it('is made for each connection, by keys that are asked for once and once more when they end', async () => {
    let asked = 0
    let lifeMs = 3_600_000
    const agent = await scriptedUpstream(ends, () => {
      const Expiration = new Date(Date.now() + lifeMs).toISOString()
      const keys = { AccessKeyId: `AKID${++asked}`, SecretAccessKey: 'wJalrXUtnFEMI', Token: 'session', Expiration }
      return ok(JSON.stringify(keys), 'content-type: application/json')
    })
    process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = `http://127.0.0.1:${agent.port}/keys`
    accepts = () => true
    const proof = { awsRdsIam: { region: 'eu-west-1' } }
    const first = await proxy(proof)
    const from = Math.floor(Date.now() / 1000)
    for (let n = 0; n < 3; n++) await who(first.options)
    const keysOf = (token: string) => new URL(`https://${token}`).searchParams.get('X-Amz-Credential')?.split('/')[0]
    assert.deepEqual([asked, passwords.map(keysOf)], [1, ['AKID1', 'AKID1', 'AKID1']])
    for (const token of passwords) {
      const [, date = '', time = ''] =
        /^(\d{8})T(\d{6})Z$/.exec(new URL(`https://${token}`).searchParams.get('X-Amz-Date') ?? '') ?? []
      const at = `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}T${time.slice(0, 2)}:${time.slice(2, 4)}:${time.slice(4)}Z`
      assert.ok(Date.parse(at) / 1000 >= from, at)
    }
    // So short that others are asked for at once: the next connections are of those, and not of a token that was kept.
    lifeMs = 60_000
    const second = await proxy(proof)
    await who(second.options)
    assert.equal(keysOf(passwords[3] ?? ''), 'AKID2')
    while (keysOf(passwords.at(-1) ?? '') === 'AKID2') await who(second.options)
    assert.equal(keysOf(passwords.at(-1) ?? ''), 'AKID3')
  })

  it('that cannot be had is 28000 with what to do about it, and no secret in it', async () => {
    const { options, told } = await proxy({ awsRdsIam: { region: 'eu-west-1' } })
    const error = await refusal(options)
    assert.deepEqual([error.code, error.hint], ['28000', 'ambassador: auth_unavailable'])
    assert.match(error.message, /auth\.postgres\.awsRdsIam: no keys were had.*bind a role to the service account/)
    assert.match(told[0] ?? '', /^auth\.postgres\.awsRdsIam: no keys were had/)
    assert.equal(passwords.length, 0)
  })

  it('that the server refuses is 28P01 or 28000 with a hint at the field', async () => {
    process.env['AWS_ACCESS_KEY_ID'] = 'AKIDEXAMPLE'
    process.env['AWS_SECRET_ACCESS_KEY'] = 'wJalrXUtnFEMI'
    accepts = () => false
    const { options, troubles } = await proxy({ awsRdsIam: { region: 'eu-west-1' } })
    const error = await refusal(options)
    assert.match(troubles[0] ?? '', /^auth_unavailable: the server refused the login: 28/)
    assert.match(error.code ?? '', /^28/)
    assert.match(error.hint ?? '', /ambassador: auth_unavailable: .*auth\.postgres\.awsRdsIam/)
    assert.doesNotMatch(JSON.stringify(error), /X-Amz-Signature/)
  })
})

describe('an access token of Google (a PostgreSQL with TLS stands for Cloud SQL)', () => {
  it('is asked of the metadata server with the scope of logins alone, once for connections that come together', async () => {
    const token = { access_token: 'ya29.one', expires_in: 3600, token_type: 'Bearer' }
    const metadata = await scriptedUpstream(ends, () =>
      ok(JSON.stringify(token), 'Metadata-Flavor: Google\r\ncontent-type: application/json'),
    )
    process.env['GCE_METADATA_HOST'] = `127.0.0.1:${metadata.port}`
    accepts = (password) => password === 'ya29.one'
    const { options } = await proxy({ gcpCloudSqlIam: {} })
    assert.deepEqual(await Promise.all([who(options), who(options), who(options)]), ['orders', 'orders', 'orders'])
    assert.equal(metadata.requests.length, 1)
    const url = new URL(metadata.requests[0]?.target ?? '', 'http://metadata')
    assert.equal(url.pathname, '/computeMetadata/v1/instance/service-accounts/default/token')
    assert.equal(url.searchParams.get('scopes'), 'https://www.googleapis.com/auth/sqlservice.login')
  })
})

describe('a token of Entra (a PostgreSQL with TLS stands for Azure Database)', () => {
  it('is asked of the endpoint of the managed identity', async () => {
    const token = { access_token: 'eyJ.azure', expires_on: String(Math.floor(Date.now() / 1000) + 3600) }
    const identity = await scriptedUpstream(ends, () => ok(JSON.stringify(token), 'content-type: application/json'))
    process.env['IDENTITY_ENDPOINT'] = `http://127.0.0.1:${identity.port}/msi/token`
    process.env['IDENTITY_HEADER'] = 'secret-header'
    accepts = (password) => password === 'eyJ.azure'
    const { options } = await proxy({ azureEntra: {} })
    assert.equal(await who(options), 'orders')
    const url = new URL(identity.requests[0]?.target ?? '', 'http://identity')
    assert.equal(url.searchParams.get('resource'), 'https://ossrdbms-aad.database.windows.net')
  })
})

describe('the example', () => {
  it('rds-postgres logs in by a token, and checks by one', async () => {
    process.env['AWS_ACCESS_KEY_ID'] = 'AKIDEXAMPLE'
    process.env['AWS_SECRET_ACCESS_KEY'] = 'wJalrXUtnFEMI'
    accepts = (token) => /DBUser=orders&.*%2Fus-east-1%2Frds-db%2F/.test(token)
    const { options } = await example('rds-postgres', 'rds-ca')
    assert.equal(await who(options), 'orders')
    // The check logs in too, sooner or later.
    while (passwords.length < 2) await new Promise((resolve) => setTimeout(resolve, 20))
  })

  it('cloud-sql logs in by a token', async () => {
    const token = { access_token: 'ya29.two', expires_in: 3600, token_type: 'Bearer' }
    const head = 'Metadata-Flavor: Google\r\ncontent-type: application/json'
    const metadata = await scriptedUpstream(ends, () => ok(JSON.stringify(token), head))
    process.env['GCE_METADATA_HOST'] = `127.0.0.1:${metadata.port}`
    accepts = (password) => password === 'ya29.two'
    const { options } = await example('cloud-sql', 'cloud-sql-ca')
    assert.equal(await who(options), 'orders@my-project.iam')
  })
})

describe('a certificate that is for another name', () => {
  it('lets nothing be sent, and says which name was wanted', async () => {
    const upstream = {
      name: 'primary',
      endpoints: [{ host: '127.0.0.1', port: database.port }],
      tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } } },
      auth: { postgres: { username: 'nobody', gcpCloudSqlIam: {} } },
    }
    const { options } = await postgresProxy({ upstreams: [upstream] }, mounts, ends)
    const error = await refusal(options)
    assert.deepEqual([error.code, error.hint], ['08001', 'ambassador: tls_verify_failed'])
    assert.match(error.message, /its certificate is for .*localhost, not for '127\.0\.0\.1'/)
    // By name: a login that an earlier test had begun may come at any time.
    assert.ok(users.has('cn=orders') && !users.has('cn=nobody'), [...users].join())
  })
})
