/** Tells a peer that closed its socket from one that only said it will send no more: on the wire both are the same FIN. */
import { close, open, read } from 'node:fs'
import type { RawSocket } from './raw-socket.ts'

/*
 * An application that is killed while it waits must free its upstream at once, and one that half-closes behind its request (`nc -N`,
 * a script that ends its output) wants its answer. TCP does not show which it was, but the application is on the same host: the
 * kernel's table has its end of the connection too, and a socket that no process holds any more has no inode.
 */

interface Question {
  readonly key: number
  readonly done: (isGone: boolean) => void
  readonly otherwise: boolean
}

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6'] as const

/** Longest line of a table, with room to spare. */
const LINE_BYTES = 512
/**
 * Readings follow each other at least this far apart, and so far that no more than a third of the time goes into them; but no
 * further than the second, for on a busy machine a reading takes long without doing much.
 */
const PAUSE_MS = 5
const MAX_PAUSE_MS = 200

let waiting: Question[] = []
let isBusy = false
/** The reading under way found one. */
let hasTable = false
const buffer = Buffer.allocUnsafeSlow(32 * 1024)

/**
 * Of a Unix socket the kernel tells by itself: a write, of no byte even, fails as soon as nobody holds the other end, and does not
 * while that end has only said that it sends no more.
 */
function askUnix(socket: RawSocket, done: (isGone: boolean) => void): void {
  setImmediate(() => done(socket.isAbandoned()))
}

/**
 * Calls `done` soon, never at once: false when a process still holds the other end.
 * @param otherwise what is said without such a table. Default true: of a peer that sent FIN
 */
export function askWhetherGone(socket: RawSocket, done: (isGone: boolean) => void, otherwise = true): void {
  if (socket.isUnix) {
    askUnix(socket, done)
    return
  }
  waiting.push({ key: keyOf(socket.remote?.port ?? 0, socket.local?.port ?? 0), done, otherwise })
  if (isBusy) return
  isBusy = true
  setImmediate(readTables)
}

/** The pair of ports is enough: the other end of a loopback connection has the same two, the other way round. */
function keyOf(local: number, remote: number): number {
  return local * 65536 + remote
}

/** One reading answers everybody who asked before it began. */
function readTables(): void {
  const questions = waiting
  waiting = []
  /** Keys that are asked for, each with whether a process holds it. */
  const held = new Map<number, boolean>(questions.map(({ key }) => [key, false]))
  const started = performance.now()
  hasTable = false
  readTable(0, held, () => {
    const took = performance.now() - started
    for (const { key, done, otherwise } of questions) done(hasTable ? held.get(key) !== true : otherwise)
    setTimeout(
      () => {
        isBusy = false
        if (waiting.length === 0) return
        isBusy = true
        readTables()
      },
      Math.min(PAUSE_MS + 2 * took, MAX_PAUSE_MS),
    ).unref()
  })
}

function readTable(index: number, held: Map<number, boolean>, done: () => void): void {
  const table = TABLES[index]
  if (table === undefined) {
    done()
    return
  }
  open(table, 'r', (error, fd) => {
    if (error !== null) {
      readTable(index + 1, held, done)
      return
    }
    hasTable = true
    readPiece(fd, 0, held, () => close(fd, () => readTable(index + 1, held, done)))
  })
}

/** Reads on behind `kept` bytes of an unfinished line. */
function readPiece(fd: number, kept: number, held: Map<number, boolean>, done: () => void): void {
  read(fd, buffer, kept, buffer.length - kept, null, (error, count) => {
    if (error !== null || count === 0) {
      done()
      return
    }
    const end = kept + count
    let start = 0
    for (;;) {
      const lineEnd = buffer.indexOf(0x0a, start)
      if (lineEnd < 0 || lineEnd >= end) break
      readLine(buffer, start, lineEnd, held)
      start = lineEnd + 1
    }
    buffer.copyWithin(0, start, end)
    readPiece(fd, Math.min(end - start, LINE_BYTES), held, done)
  })
}

/** Fields of a line: number, local address, remote address, state, queues, timers, retransmits, user, timeout, inode, ... */
function readLine(line: Buffer, start: number, end: number, held: Map<number, boolean>): void {
  let at = line.indexOf(0x3a, start) + 1
  const localPort = line.indexOf(0x3a, at) + 1
  const remotePort = line.indexOf(0x3a, localPort) + 1
  if (localPort === 0 || remotePort === 0 || remotePort + 4 > end) return
  const key = keyOf(hex(line, localPort), hex(line, remotePort))
  if (!held.has(key)) return
  at = remotePort + 4
  // Six fields stand between the remote address and the inode.
  for (let skip = 0; skip < 7; skip++) {
    while (at < end && line[at] === 0x20) at++
    if (skip === 6) break
    while (at < end && line[at] !== 0x20) at++
  }
  if (line[at] !== 0x30) held.set(key, true)
}

function hex(bytes: Buffer, at: number): number {
  return Number.parseInt(bytes.toString('latin1', at, at + 4), 16)
}
