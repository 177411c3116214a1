/** Applications with plain psql, pgbench and redis-cli and no password, before a real PostgreSQL and a real Redis. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Pki } from '../helpers/pki.ts'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, deployment, podTemplate, RESOURCES, RESTRICTED } from './lib/manifests.ts'
import { lastReport } from './lib/reports.ts'
import { loadImages, type World, world } from './lib/world.ts'

const IMAGE = 'localhost/ambassador-test-databases:dev'

const START_POSTGRES = `
set -e
initdb -D /tmp/data -U postgres --auth-local=trust --auth-host=scram-sha-256 -E UTF8 --no-sync
echo 'host all all all scram-sha-256' >> /tmp/data/pg_hba.conf
postgres --single -D /tmp/data postgres <<END
create role app login password 'first'
create database shop owner app
END
cp /tls/tls.key /tmp/tls.key
chmod 600 /tmp/tls.key
exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off -c jit=off \\
  -c ssl=on -c ssl_cert_file=/tls/tls.crt -c ssl_key_file=/tmp/tls.key
`

const START_REDIS = ['redis-server', '--requirepass', 'first', '--save', '', '--dir', '/tmp', '--bind', '*']

/**
 * Writes with pgbench on four new connections after the other, by each of the two Ambassadors in turn, once there is something to
 * write into; 5 s more after SIGTERM.
 */
const BENCH = `
until=''
trap 'until=$(($(date +%s) + 5))' TERM
while ! psql -qtAc 'select 1 from pgbench_accounts limit 1' 2> /dev/null | grep -q 1; do
  [ -z "$until" ] || exit 0
  sleep 0.2
done
transactions=0 failures=0 port=5432
while [ -z "$until" ] || [ "$(date +%s)" -lt "$until" ]; do
  if pgbench -n -p $port -c 4 -t 25 > /tmp/bench 2>&1 && grep -q 'failed transactions: 0 ' /tmp/bench; then
    transactions=$((transactions + 100))
  else
    failures=$((failures + 1))
    cat /tmp/bench >&2
  fi
  port=$((11864 - port))
  echo "{\\"kind\\":\\"tick\\",\\"transactions\\":$transactions,\\"failures\\":$failures}"
done
echo "{\\"kind\\":\\"last\\",\\"transactions\\":$transactions,\\"failures\\":$failures}"
`

function container(name: string, command: readonly string[], extra: object = {}): object {
  return {
    name,
    image: IMAGE,
    imagePullPolicy: 'IfNotPresent',
    command,
    resources: RESOURCES,
    securityContext: RESTRICTED,
    ...extra,
  }
}

/** @param tlsSecret mounted at /tls */
function server(name: string, port: number, command: readonly string[], tlsSecret?: string): object[] {
  const tls = tlsSecret === undefined ? [] : [{ name: 'tls', secret: { secretName: tlsSecret } }]
  const readinessProbe = { tcpSocket: { port }, periodSeconds: 1, timeoutSeconds: 5 }
  return [
    deployment(name, {
      metadata: { labels: { app: name } },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [container('server', command, { readinessProbe, volumeMounts: tls.map(() => TLS_MOUNT) })],
        volumes: tls,
      },
    }),
    { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec: { selector: { app: name }, ports: [{ port }] } },
  ]
}

const TLS_MOUNT = { name: 'tls', mountPath: '/tls' }

const secret = (name: string, password: string): object => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name },
  stringData: { password },
})

const primary = {
  name: 'primary',
  endpoints: [{ host: 'postgres', port: 5432 }],
  auth: { postgres: { username: 'app', password: { secretKeyRef: { name: 'orders-db', key: 'password' } } } },
}

/** Under the name of the server itself, and offered to an application that does not say where its database is. */
const listen = { port: 5432, hostnames: ['postgres', 'db.shop.example'], env: true }

const ordersDb = (spec: object = {}): object =>
  ambassador('orders-db', { protocol: 'PostgreSQL', listen, upstreams: [primary], ...spec })

const tls = { ca: { configMapKeyRef: { name: 'postgres-ca', key: 'ca.crt' } } }

/** The same database over TLS, with two connections for all. */
const pooledDb = (spec: object = {}): object =>
  ambassador('pooled-db', {
    protocol: 'PostgreSQL',
    listen: { port: 6432 },
    upstreams: [{ ...primary, tls, limits: { maxConnections: 2 } }],
    postgres: { pooling: { mode: 'Transaction' } },
    ...spec,
  })

describe('databases on a real cluster', () => {
  let w: World
  before(async () => {
    w = await world('e2e-databases')
    await loadImages(w.cluster, ['ambassador-test-databases'])
    const environment = { PGUSER: 'anybody', PGDATABASE: 'shop' }
    const env = Object.entries(environment).map(([name, value]) => ({ name, value }))
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue({ names: ['postgres'] })
    pki.remove()
    await w.kubectl.apply([
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'postgres-tls' },
        type: 'kubernetes.io/tls',
        stringData: { 'tls.crt': leaf.cert, 'tls.key': leaf.key },
      },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'postgres-ca' }, data: { 'ca.crt': authority.cert } },
      ...server('postgres', 5432, ['sh', '-c', START_POSTGRES], 'postgres-tls'),
      ...server('sessions', 6379, START_REDIS),
      secret('orders-db', 'first'),
      secret('sessions', 'first'),
      ordersDb(),
      pooledDb(),
      ambassador('cache', {
        protocol: 'Redis',
        listen: { port: 6379, hostnames: ['redis'], env: true },
        upstreams: [
          {
            name: 'sessions',
            endpoints: [{ host: 'sessions', port: 6379 }],
            auth: { redis: { password: { secretKeyRef: { name: 'sessions', key: 'password' } } } },
          },
        ],
      }),
      deployment(
        'shop',
        podTemplate('shop', 'orders-db,pooled-db,cache', {
          terminationGracePeriodSeconds: 30,
          containers: [container('app', ['sh', '-c', BENCH], { env })],
        }),
      ),
    ])
    await Promise.all(['postgres', 'sessions', 'shop'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    // A Service may know its pod a moment later than the rollout does.
    await eventually('PostgreSQL is reached', async () => (await psql('select 1')).code === 0)
    await eventually('Redis is reached', async () => (await redis('ping')).stdout === 'PONG\n')
  })
  after(() => w?.close())

  const sh = (script: string) => w.kubectl.exec('deploy/shop', ['sh', '-c', script])
  const psql = (sql: string) => w.kubectl.exec('deploy/shop', ['psql', '-qtAc', sql])
  const redis = (...command: string[]) =>
    w.kubectl.exec('deploy/shop', ['sh', '-c', 'redis-cli -u "$REDIS_URL" "$@"', 'redis-cli', ...command])
  const inPostgres = async (sql: string): Promise<void> => {
    const command = ['psql', '-qtA', '-h', '/tmp', '-U', 'postgres', '-c', sql]
    const { code, stderr } = await w.kubectl.exec('deploy/postgres', command, 'server')
    assert.equal(code, 0, stderr)
  }
  const inRedis = async (...command: string[]): Promise<void> => {
    const { stdout, stderr } = await w.kubectl.exec('deploy/sessions', ['redis-cli', ...command], 'server')
    assert.doesNotMatch(stdout, /ERR|NOAUTH|WRONGPASS/, stderr)
  }
  const pod = async (): Promise<string> => (await w.kubectl.pods('app=shop'))[0].metadata.name
  /** Waits for what follows from a new Secret. Kubelets look at Secrets every minute or so, and when the pod changes. */
  const follows = (what: string, ask: () => Promise<boolean>): Promise<boolean> =>
    eventually(
      what,
      async () => {
        await w.kubectl.annotate(`pod/${await pod()}`, { 'example.com/rotated': `${Date.now()}` })
        return await ask()
      },
      { timeoutMs: 120_000, everyMs: 1000 },
    )

  it('psql without a password, as anybody, is logged in as the user of the Ambassador', async () => {
    const { stdout, stderr } = await psql('select session_user, current_database()')
    assert.equal(stdout, 'app|shop\n', stderr)
  })

  it('the application is told where its dependencies are, and the name of the server itself means the sidecar', async () => {
    const { stdout, stderr } = await sh('echo "$PGHOST $PGPORT $PGSSLMODE $REDIS_URL"')
    assert.equal(stdout, '127.0.0.1 5432 disable redis://127.0.0.1:6379\n', stderr)
    for (const host of listen.hostnames) {
      const named = await sh(`psql -h ${host} -qtAc 'select session_user'`)
      assert.equal(named.stdout, 'app\n', named.stderr)
    }
    // Past the sidecar, the server wants a password.
    const past = await sh(`psql -w -h postgres.e2e-databases.svc.cluster.local -qtAc 'select session_user'`)
    assert.match(past.stderr, /no password supplied/)
  })

  it('eight clients of pgbench share two connections with pooling mode Transaction, and every transaction is done once', async () => {
    const { code, stderr } = await sh('psql -p 6432 -qc "create table visits (pid int)"')
    assert.equal(code, 0, stderr)
    const file = '/tmp/visit.sql'
    await sh(`echo 'begin; insert into visits values (pg_backend_pid()); select pg_sleep(0.01); commit;' > ${file}`)
    // A thread for each client: where they share one, a client that prepares keeps the others from ending their transactions.
    const bench = await sh(`pgbench -p 6432 -n -M prepared -c 8 -j 8 -t 25 -f ${file}`)
    assert.equal(bench.code, 0, bench.stderr)
    assert.match(bench.stdout, /transactions actually processed: 200\/200/)
    const { stdout } = await psql('select count(*), count(distinct pid) from visits')
    assert.equal(stdout, '200|2\n')
    // The server wants SCRAM of everybody, and its clients of this Ambassador come over TLS.
    const encrypted = 'select session_user, ssl from pg_stat_ssl where pid = pg_backend_pid()'
    assert.equal((await sh(`psql -p 6432 -qtAc '${encrypted}'`)).stdout, 'app|t\n')
    assert.equal((await psql(encrypted)).stdout, 'app|f\n')
  })

  it('redis-cli without a password, under the name that it always used, writes and reads', async () => {
    const named = await w.kubectl.exec('deploy/shop', ['redis-cli', '-h', 'redis', 'set', 'basket', '3 apples'])
    assert.equal(named.stdout, 'OK\n', named.stderr)
    assert.equal((await redis('get', 'basket')).stdout, '3 apples\n')
    const direct = await w.kubectl.exec('deploy/shop', ['redis-cli', '-h', 'sessions', 'get', 'basket'])
    assert.match(direct.stdout + direct.stderr, /NOAUTH/, 'the server itself asks for one')
  })

  it('a password of PostgreSQL that is rotated is used for what connects next, and what is connected goes on', async () => {
    // It says on the way that it is connected, and asks on until it is told that the password is another.
    const script =
      "(echo 'select 1;'; echo '\\! touch /tmp/connected'; until [ -e /tmp/rotated ]; do echo 'select 1;'; sleep 0.1; done; echo \"select 'at the end';\")"
    const open = sh(`${script} | psql -qtA -v ON_ERROR_STOP=1`)
    await eventually('it is connected', async () => (await sh('test -e /tmp/connected')).code === 0)
    await inPostgres(`alter role app password 'second'`)
    await w.kubectl.apply([secret('orders-db', 'second')])
    const options = 'options=-capplication_name=after'
    await follows('a new connection logs in', async () => (await sh(`psql '${options}' -c 'select 1'`)).code === 0)
    await sh('touch /tmp/rotated')
    const { code, stdout, stderr } = await open
    assert.equal(code, 0, stderr)
    assert.match(stdout, /at the end\n$/)
    // Not one that was logged in before.
    await inPostgres(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'`)
    await eventually('a new login is made', async () => (await psql('select session_user')).stdout === 'app\n')
    const pooled = () => sh('psql -p 6432 -qtAc "select session_user"')
    await eventually('the pool logs in', async () => (await pooled()).stdout === 'app\n')
  })

  it('a password of Redis that is rotated is used for what connects next', async () => {
    await inRedis('-a', 'first', 'config', 'set', 'requirepass', 'second')
    await w.kubectl.apply([secret('sessions', 'second')])
    await follows('a new connection logs in', async () => {
      // Those that are logged in keep their rights: none is left.
      await inRedis('-a', 'second', 'client', 'kill', 'type', 'normal', 'skipme', 'yes')
      return (await redis('get', 'basket')).stdout === '3 apples\n'
    })
  })

  it('pgbench, with and without a pool behind TLS, sees no failed transaction while its Ambassadors change and its pod is deleted', async () => {
    const { code, stderr } = await sh('pgbench -i -q')
    assert.equal(code, 0, stderr)
    const name = await pod()
    const report = async (): Promise<Json> => JSON.parse((await w.kubectl.lastLine(name)).trim() || '{}')
    await eventually('transactions are made', async () => (await report()).transactions > 200)
    const timeouts = { connect: '10s' }
    await w.kubectl.apply([ordersDb({ timeouts }), pooledDb({ timeouts })])
    await Promise.all(['amb/orders-db', 'amb/pooled-db'].map((amb) => w.kubectl.wait(amb, 'Programmed')))
    const { transactions } = await report()
    await eventually('transactions are made after the change', async () => {
      return (await report()).transactions > transactions + 200
    })
    const end = () => w.kubectl.scale('deployment/shop', 0)
    const last = await lastReport(w.kubectl, name, end)
    assert.equal(last.failures, 0)
    assert.ok(last.transactions > transactions)
    // Each transaction writes one line of history: what pgbench was told is done, once.
    const count = [
      'psql',
      '-qtA',
      '-h',
      '/tmp',
      '-U',
      'postgres',
      '-d',
      'shop',
      '-c',
      'select count(*) from pgbench_history',
    ]
    const { stdout } = await w.kubectl.exec('deploy/postgres', count, 'server')
    assert.equal(Number(stdout), last.transactions)
    console.log(`    ${last.transactions} transactions, 0 failed`)
  })
})
