/** Tells a peer that closed its socket from one that only said it will send no more: on the wire both are the same FIN. */
import { readFile } from 'node:fs'
import type { Socket } from 'node:net'

/**
 * An application that is killed while it waits must free its upstream at once, and one that half-closes behind its request (`nc -N`,
 * a script that ends its output) wants its answer. TCP does not show which it was, but the application is on the same host: the
 * kernel's table has its end of the connection too, and a socket that no process holds any more has no inode.
 */
interface Question {
  /** Ports of the peer and of ourselves as the table writes them. */
  readonly ports: string
  readonly done: (isGone: boolean) => void
}

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'] as const

let waiting: Question[] = []
let isReading = false

/** Calls `done` soon, never at once: false when a process still holds the other end. Without such a table everybody is gone. */
export function askWhetherGone(socket: Socket, done: (isGone: boolean) => void): void {
  waiting.push({ ports: `${hex(socket.remotePort)}>${hex(socket.localPort)}`, done })
  if (!isReading) read()
}

/** One reading answers everybody who asked before it began. */
function read(): void {
  isReading = true
  const questions = waiting
  waiting = []
  const held = new Set<string>()
  let left: number = TABLES.length
  for (const table of TABLES) {
    readFile(table, 'latin1', (_error, text: string | undefined) => {
      collect(text ?? '', held)
      if (--left > 0) return
      isReading = false
      if (waiting.length > 0) read()
      for (const { ports, done } of questions) done(!held.has(ports))
    })
  }
}

/** Fields of a line: number, local address, remote address, state, queues, timers, retransmits, user, timeout, inode, ... */
function collect(text: string, held: Set<string>): void {
  for (const line of text.split('\n')) {
    const [, local = '', remote = '', , , , , , , inode = '0'] = line.trim().split(/\s+/)
    if (inode === '0' || !/^\d+$/.test(inode)) continue
    held.add(`${local.slice(local.indexOf(':') + 1)}>${remote.slice(remote.indexOf(':') + 1)}`)
  }
}

function hex(port: number | undefined): string {
  return (port ?? 0).toString(16).toUpperCase().padStart(4, '0')
}
