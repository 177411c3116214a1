/** From the protocol of a config to the driver that speaks it. */
import type { Snapshot } from './config/compile.ts'
import { tcpAccessLine } from './observe/tcp-access-log.ts'
import { TcpDriver } from './protocol/tcp/driver.ts'
import type { TcpSnapshot } from './protocol/tcp/snapshot.ts'
import type { OnTrouble, SnapshotDriver } from './served.ts'

/** Makes the driver for a snapshot; it takes later ones of the same protocol by update(). */
export function makeDriver(snapshot: Snapshot, onTrouble: OnTrouble): SnapshotDriver {
  switch (snapshot.config.protocol) {
    case 'TCP':
      return tcpDriver(snapshot, onTrouble)
    case 'HTTP':
      throw new Error('not yet')
  }
}

/** TCP, whose driver knows one cluster and no config. */
function tcpDriver(snapshot: Snapshot, onTrouble: OnTrouble): SnapshotDriver {
  const { namespace, name } = snapshot.config.ambassador
  const tcp = new TcpDriver({
    snapshot: tcpSnapshot(snapshot),
    onTrouble: (record) => onTrouble(record.end, record.detail ?? ''),
    onLogged: (record) => process.stdout.write(tcpAccessLine(namespace, name, record)),
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

function tcpSnapshot({ config, clusters, rateLimit }: Snapshot): TcpSnapshot {
  const [first] = clusters
  if (first === undefined) throw new Error('a config has at least one cluster')
  return { cluster: first.cluster, timeouts: config.timeouts, rateLimit, accessLog: config.accessLog }
}
