/** Connections as listeners of the proxy hand them out, for tests that have no listener or no driver. */
import { Socket } from 'node:net'
import { type Accepted, type ListeningSocket, listenAt } from '../../proxy/runtime/listen.ts'

const fail = (error: Error): void => {
  throw error
}

/** Has `serve` take what is accepted on a free port of loopback. */
export function serving(serve: (accepted: Accepted) => void): { readonly port: number; readonly close: () => void } {
  const listening: ListeningSocket = listenAt({ port: 0, host: '127.0.0.1', ipv6Only: true }, serve, fail)
  return { port: listening.name!.port, close: () => listening.close() }
}

/** A socket of Node around what was accepted. */
export const socketOf = (accepted: Accepted): Socket =>
  new Socket({ handle: accepted, allowHalfOpen: true } as never).on('error', () => {})

/** Says some words and ends. */
export const saying =
  (words: string) =>
  (accepted: Accepted): void => {
    socketOf(accepted).resume().end(words)
  }
