/** What many clients of a pool cost that do nothing, while others work. */
import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { it } from 'node:test'
import { askAll, openClients } from '../../bench/postgres/clients.ts'
import { anonymousBytes } from '../../bench/process.ts'
import { postgresServer } from '../../helpers/postgres.ts'
import { scope } from '../../helpers/postgres-client.ts'
import { postgresProcess } from '../../helpers/postgres-process.ts'

const CONNECTIONS = 10
const IDLE = 2_000
const ACTIVE = 200
const ASKS = 5
const BOUND_BYTES = 20 * 1024

it(
  '2,000 clients that are idle cost at most 20 KB each, while 200 others share 10 connections with them and are all answered',
  { timeout: 240_000 },
  (t) =>
    scope(async (ends) => {
      const server = await postgresServer({}, ends)
      const limits = { maxConnections: CONNECTIONS, maxPendingRequests: IDLE + ACTIVE }
      const { port, pid } = await postgresProcess(server.port, limits, {}, ends)
      const open = async (count: number): Promise<Socket[]> => {
        const sockets = await openClients(port, count)
        ends.push(() => {
          for (const socket of sockets) socket.destroy()
        })
        return sockets
      }
      // The process has its connections and what it needs for busy clients before it is measured.
      const active = await open(ACTIVE)
      await askAll(active, ASKS)
      const before = anonymousBytes(pid)
      const idle = await open(IDLE)
      await askAll(active, ASKS)
      const bytes = (anonymousBytes(pid) - before) / IDLE
      t.diagnostic(`${Math.round(bytes)} bytes for each idle client`)
      assert.ok(bytes <= BOUND_BYTES, `${bytes} bytes for each`)
      // They are there still, all at once.
      await askAll([...idle, ...active], 1)
    })(),
)
