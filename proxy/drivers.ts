/** From the protocol of a config to the driver that speaks it. */
import type { CompiledCluster, Snapshot } from './config/compile.ts'
import { httpAccessLine } from './observe/access-log.ts'
import { tcpAccessLine } from './observe/tcp-access-log.ts'
import { HttpDriver } from './protocol/http1/driver.ts'
import { type HttpSnapshot, httpUpstream, retryPlan } from './protocol/http1/snapshot.ts'
import { TcpDriver } from './protocol/tcp/driver.ts'
import type { TcpSnapshot } from './protocol/tcp/snapshot.ts'
import type { MakeDriver, OnTrouble, SnapshotDriver } from './served.ts'

/** Takes one line of the access log, with its line break. */
export type WriteLine = (line: string) => void

/** What makes the driver for a snapshot; it takes later ones of the same protocol by update(). Access lines go to `write`. */
export function driverMaker(write: WriteLine): MakeDriver {
  return (snapshot, onTrouble) =>
    snapshot.config.protocol === 'HTTP' ? httpDriver(snapshot, onTrouble, write) : tcpDriver(snapshot, onTrouble, write)
}

function httpDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const http = new HttpDriver({
    snapshot: httpSnapshot(snapshot),
    onTrouble,
    onLogged: (record) => write(httpAccessLine(namespace, name, record)),
  })
  const { cells } = first(snapshot)
  return {
    counts: { protocol: 'HTTP', http },
    update: (newer) => http.update(httpSnapshot(newer)),
    serve: (socket) => http.serve(socket),
    drain: () => http.drain(),
    destroy: () => http.destroy(),
    get open() {
      return http.open
    },
    get busy() {
      return http.busy
    },
    get answers() {
      const answers: Record<string, number> = {}
      cells.byStatus.forEach((cell, status) => {
        if (cell !== null) answers[status] = cell.count
      })
      return answers
    },
  }
}

/** TCP, whose driver knows one cluster and no config. */
function tcpDriver(snapshot: Snapshot, onTrouble: OnTrouble, write: WriteLine): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const tcp = new TcpDriver({
    snapshot: tcpSnapshot(snapshot),
    onTrouble: (record) => onTrouble(record.end, record.detail ?? ''),
    onLogged: (record) => write(tcpAccessLine(namespace, name, record)),
  })
  return {
    counts: { protocol: 'TCP', tcp },
    update: (newer) => tcp.update(tcpSnapshot(newer)),
    serve: (socket) => tcp.serve(socket),
    drain: () => tcp.drain(),
    destroy: () => tcp.destroy(),
    get open() {
      return tcp.open
    },
    get busy() {
      return tcp.busy
    },
    get answers() {
      return tcp.totals.ends as Record<string, number>
    },
  }
}

function httpSnapshot(snapshot: Snapshot): HttpSnapshot {
  const { config, rateLimit } = snapshot
  const { cluster, credential, cells } = first(snapshot)
  return {
    upstream: httpUpstream(cluster, credential, cells),
    retry: retryPlan(config.retry),
    timeouts: config.timeouts,
    rateLimit,
    accessLog: config.accessLog,
  }
}

function tcpSnapshot(snapshot: Snapshot): TcpSnapshot {
  const { config, rateLimit } = snapshot
  return { cluster: first(snapshot).cluster, timeouts: config.timeouts, rateLimit, accessLog: config.accessLog }
}

/** All traffic goes to the first upstream; the schema demands one. */
function first({ clusters: [cluster] }: Snapshot): CompiledCluster {
  if (cluster === undefined) throw new Error('a config has at least one cluster')
  return cluster
}
