/** Binds a server to an address or a path without what Node loads for names and for workers. */
import type { Server } from 'node:net'

export interface ListenOptions {
  /** 0: a free one. */
  readonly port: number
  /** An IP address. */
  readonly host: string
  readonly ipv6Only: boolean
  /** Connections that wait in the kernel to be accepted. Default 511, as Node has it. */
  readonly backlog?: number
}

/** What Node has and its types do not show. listen.test.ts fails when a new Node changes it. */
interface Internals {
  _listen2?: (host: string, port: number, family: 4 | 6 | -1, backlog: number, fd: number, flags: number) => void
}

/** UV_TCP_IPV6ONLY */
const IPV6_ONLY = 1
const DEFAULT_BACKLOG = 511

/**
 * Resolves when `server` listens; rejects with the error of the kernel. Server.listen() would load node:dns, node:cluster,
 * node:dgram and node:child_process: 0.4 MB and a tenth of the start, for an address that needs no look-up and a process that has
 * no workers.
 */
export function listenAt(
  server: Server,
  { port, host, ipv6Only, backlog = DEFAULT_BACKLOG }: ListenOptions,
): Promise<void> {
  return listening(server, () => {
    const internals = server as Internals
    if (internals._listen2 === undefined) server.listen({ port, host, backlog, ipv6Only, exclusive: true })
    else internals._listen2(host, port, host.includes(':') ? 6 : 4, backlog, -1, ipv6Only ? IPV6_ONLY : 0)
  })
}

/** Of a file that is made here: everybody may read and write, nobody may execute. */
const OPEN_TO_ALL = 0o111

/** As listenAt(), on a Unix socket that every user may connect to. The file is removed when the server closes. */
export function listenAtPath(server: Server, path: string, backlog: number): Promise<void> {
  return listening(server, () => {
    const internals = server as Internals
    // A chmod behind it would leave a moment in which others are refused. Nothing else happens before it is set back.
    const umask = process.umask(OPEN_TO_ALL)
    try {
      if (internals._listen2 === undefined) server.listen({ path, backlog, exclusive: true })
      else internals._listen2(path, -1, -1, backlog, -1, 0)
    } finally {
      process.umask(umask)
    }
  })
}

function listening(server: Server, begin: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const onListening = () => {
      server.off('error', onError)
      resolve()
    }
    const onError = (error: Error) => {
      server.off('listening', onListening)
      reject(error)
    }
    server.once('error', onError)
    server.once('listening', onListening)
    begin()
  })
}
