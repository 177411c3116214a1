/** What a client of a pool is let in with: the parameters of its startup packet, as a connection has taken them for it or for an earlier one. */
import { beginSql } from './client-parameters.ts'
import { Auth, Back, message, READY } from './messages.ts'
import type { Parameters, Values } from './parameters.ts'
import type { Pool } from './pool.ts'
import type { Server } from './server.ts'
import type { ClientLogin } from './session-host.ts'

/** It wants a stream of changes: such a connection is never shared. */
export function isReplicating({ fixed }: ClientLogin): boolean {
  return fixed.has('replication') && !/^(?:false|off|no|0)$/i.test(fixed.get('replication') ?? '')
}

/** The values that the parameters of a client get; null: only a server knows. */
export function knownValues({ known, profiles }: Pool, { settings }: ClientLogin): Values | null {
  return known === null ? null : profiles.known(settings, known)
}

/**
 * Gives the parameters of a new client to a connection.
 * @param isReset what an earlier client has left there goes first
 * @param done called later, with the ErrorResponse of a server that does not take them; what they became is remembered then
 * @returns false: they are there already, and `done` is not called
 */
export function beginAt(
  server: Server,
  pool: Pool,
  { settings }: ClientLogin,
  isReset: boolean,
  done: (failure: Buffer | null) => void,
): boolean {
  if (isReset) server.reset(null)
  const { initial } = server
  const sql = beginSql(pool.parameters, isReset ? initial : server.values, initial, settings)
  if (sql === '' && !isReset) return false
  server.run(sql, (failure) => {
    if (failure === null) server.take(initial)
    if (failure === null && !server.isDoubtful) pool.profiles.learn(settings, server.values)
    done(failure)
  })
  return true
}

/** All that a client gets before its first request. */
export function welcome({ negotiation, key }: ClientLogin, parameters: Parameters, values: Values): Buffer {
  return Buffer.concat([
    ...(negotiation === null ? [] : [negotiation]),
    message(Back.authentication, Auth.ok),
    parameters.report(values),
    message(Back.backendKeyData, key),
    READY,
  ])
}
