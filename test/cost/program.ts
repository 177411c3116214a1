/**
 * Counts what a request costs: `node program.ts CASE...`, where a case is the name of a path, or `PATH+EXTRA` with a cost of extra.ts.
 * Proxy, client and upstream share this process, so that none waits until another gets its turn. Writes JSON: case → Cost.
 */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { Pki } from '../helpers/pki.ts'
import { freePort } from '../helpers/ports.ts'
import { Volumes, writeVolume } from '../helpers/volume.ts'
import { type Cost, costOf } from './cost.ts'
import { Counters } from './counters.ts'
import { PATHS, type Path } from './paths.ts'
import { installVirtualTime } from './virtual-time.ts'

/** Requests of a round: as many as request ids are made from one read of random bytes. */
const ROUND = 512
/** Connections of a round: what happens in one of them is the same for each. */
const BRIEF_ROUND = 128
const LAP = 64

// Both before anything of the proxy is loaded.
const pass = installVirtualTime()
const counters = new Counters(join(import.meta.dirname, '../..'), (path) =>
  /^(proxy|common|test\/cost\/extra)/.test(path),
)
const { render } = await import('../../operator/render/render.ts')
const { ProxyApp } = await import('../../proxy/app.ts')
const { fixedSource } = await import('../../proxy/config/load.ts')
const { driverMaker } = await import('../../proxy/drivers.ts')
const { ProxyLog } = await import('../../proxy/observe/log.ts')
const { discover } = await import('../../proxy/upstream/discovery/discover.ts')
const { Resolver } = await import('../../proxy/upstream/dns/resolver.ts')
const { addExtra } = await import('./extra.ts')

const volumes = new Volumes()
const pki = new Pki()
const authority = pki.authority()
const leaf = authority.issue({ names: ['127.0.0.1'] })
writeVolume(join(volumes.secretsDir, 'db'), { password: 'correct horse' })
writeVolume(join(volumes.configMapsDir, 'ca'), { 'ca.crt': authority.cert })
process.on('exit', () => {
  pki.remove()
  volumes.remove()
})

/** Waits for what itself waits for timers. */
const settled = async <T>(work: Promise<T>): Promise<T> => {
  let isOver = false
  work.then(
    () => (isOver = true),
    () => (isOver = true),
  )
  while (!isOver) {
    pass(10)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return work
}

/** Answers what comes, piece by piece. */
const upstreamOf = async ({
  greeting,
  answer,
  hasTls,
  isBrief,
  owed,
}: Path): Promise<{ server: Server; port: number }> => {
  const serve = (socket: Socket): void => {
    let isGreeted = greeting === undefined
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      if (!isGreeted) socket.write(greeting!.answer)
      else if (isBrief === true) socket.end(answer)
      else if (owed === undefined) socket.write(answer)
      else for (let left = owed(chunk as Buffer); left > 0; left--) socket.write(answer)
      isGreeted = true
    })
  }
  const server = hasTls === true ? createTlsServer(leaf, serve) : createServer(serve)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, port: (server.address() as { readonly port: number }).port }
}

const appOf = async (path: Path, upstreamPort: number) => {
  const port = await freePort()
  const upstream = {
    name: 'upstream',
    endpoints: [{ host: '127.0.0.1', port: upstreamPort }],
    ...(path.hasTls && { tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } } } }),
    ...path.settings,
  }
  const ambassador = {
    metadata: { namespace: 'shop', name: 'cost', generation: 1 },
    spec: { protocol: path.protocol, listen: { port }, upstreams: [upstream], ...path.spec },
  } as unknown as Ambassador
  const { config, problems } = render({ ambassador })
  if (config === null) throw new Error(`path '${path.name}': ${JSON.stringify(problems)}`)
  const told: string[] = []
  const log = new ProxyLog({ level: 'warn', write: (line) => told.push(line) })
  const resolver = new Resolver()
  const app = new ProxyApp({
    sources: [fixedSource(config)],
    dirs: { ...volumes.dirs, isPod: false },
    telemetryPort: 0,
    adminPort: 0,
    readiness: 'Listening',
    sidecarMode: 'Native',
    drainMs: 5000,
    podName: 'pod',
    log,
    discover: (config, source) => discover(config, resolver, source),
    makeDriver: driverMaker((line) => told.push(line), { pod: 'pod', log }),
    onQuit: () => {},
  })
  await settled(app.start())
  return { app, port, told }
}

/** Sends a request `count` times, each when the one before is answered. */
const ask = (client: Socket, path: Path, count: number): Promise<void> =>
  new Promise((resolve, reject) => {
    let left = count
    let got = 0
    let length = 0
    client.removeAllListeners()
    client.once('close', () => reject(new Error(`path '${path.name}': the connection was closed`)))
    client.on('data', (chunk) => {
      got += chunk.length
      if (got < path.answer.length) return
      // Each answer is as long as the first.
      length ||= got
      if (got !== length) reject(new Error(`path '${path.name}': an answer has ${got} bytes in place of ${length}`))
      got = 0
      pass(1)
      if (--left % LAP === 0) counters.lap()
      if (left === 0) resolve()
      else client.write(path.request)
    })
    client.write(path.request)
  })

/** Does the same with a connection for each, which is over when the upstream, too, has seen its end. */
const askAnew = async (server: Server, port: number, path: Path, count: number): Promise<void> => {
  for (let left = count - 1; left >= 0; left--) {
    const accepted = once(server, path.hasTls === true ? 'secureConnection' : 'connection')
    const client = connect(port, '127.0.0.1', () => client.write(path.request)).setNoDelay(true)
    let got = 0
    client.on('data', (chunk) => {
      got += chunk.length
    })
    await once(client, 'close')
    const [upstream] = (await accepted) as [Socket]
    if (!upstream.closed) await once(upstream, 'close')
    if (got !== path.answer.length) throw new Error(`path '${path.name}': an answer has ${got} bytes`)
    // What closes a socket tells of it a turn later.
    await new Promise((resolve) => setImmediate(resolve))
    pass(1)
    if (left % LAP === 0) counters.lap()
  }
}

const greet = async (client: Socket, { greeting }: Path): Promise<void> => {
  if (greeting === undefined) return
  client.write(greeting.request)
  for (let said = Buffer.alloc(0); !said.subarray(-greeting.end.length).equals(greeting.end); ) {
    const [chunk] = (await once(client, 'data')) as [Buffer]
    said = Buffer.concat([said, chunk])
  }
}

const countPath = async (path: Path): Promise<Cost> => {
  const { server, port: upstreamPort } = await upstreamOf(path)
  const { app, port, told } = await appOf(path, upstreamPort)
  const client = path.isBrief === true ? null : connect(port, '127.0.0.1').setNoDelay(true)
  if (client !== null) await once(client, 'connect')
  if (client !== null) await greet(client, path)
  const count = client === null ? BRIEF_ROUND : ROUND
  const round = (): Promise<void> => (client === null ? askAnew(server, port, path, count) : ask(client, path, count))
  await round()
  counters.reset()
  await round()
  const cost = costOf(counters.take(), count)
  // A path that went wrong costs something else.
  if (told.length > 0) throw new Error(`path '${path.name}': ${told.join('')}`)
  client?.removeAllListeners()
  client?.destroy()
  await settled(app.stop())
  server.close()
  return cost
}

const costs: Record<string, Cost> = {}
for (const each of process.argv.slice(2)) {
  const [name, extra] = each.split('+')
  const path = PATHS.find((path) => path.name === name)
  if (path === undefined) throw new Error(`path '${name}': is not known`)
  const takeAway = extra === undefined ? () => {} : addExtra(extra)
  costs[each] = await countPath(path)
  takeAway()
}
process.stdout.write(JSON.stringify(costs), () => process.exit(0))
