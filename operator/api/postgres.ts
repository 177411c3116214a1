/** What a spec says of PostgreSQL alone: how connections to the server are shared, and which statements are told of. */
import { z } from 'zod'
import { doc, duration, integer, optional, rule } from '../../common/schema-kit.ts'
import { queryLog } from './query-log.ts'

const pooling = rule(
  z.object({
    mode: doc(
      z.enum(['Transaction', 'Session', 'Disabled']),
      'What a connection of the application gets. Transaction: a connection to the server for each transaction; what needs one for longer (LISTEN, temporary tables, SET, advisory locks) keeps it, and the log says so. Session: one until it ends, which the next one then uses, cleaned by DISCARD ALL. Disabled: one of its own, made and closed with it.',
    ),
    queueTimeout: optional(
      duration(),
      'How long a transaction (Transaction) or a connection (Session) waits for one of limits.maxConnections, and for a server to come back. Then it fails with SQLSTATE 53300; a notice says so after 5s, or after half of that time when it is shorter.',
      '30s',
    ),
    idleTimeout: optional(
      duration({ zero: true }),
      'A connection to the server that nobody used for this long is closed. `0s`: never.',
      '10m',
    ),
    maxLifetime: optional(
      duration({ zero: true }),
      'A connection to the server that is older is closed when it is free. `0s`: never.',
      '1h',
    ),
    maxPreparedStatements: optional(
      integer(1, 10_000),
      'Statements that are kept prepared on each connection to the server; the one that was not used for longest gives way. With mode Transaction.',
      '200',
    ),
  }),
  {
    cel: `self.mode != 'Disabled' || !(has(self.queueTimeout) || has(self.idleTimeout) || has(self.maxLifetime) || has(self.maxPreparedStatements))`,
    holds: ({ mode, ...others }) => mode !== 'Disabled' || Object.values(others).every((each) => each === undefined),
    field: ['mode'],
    message: 'mode Disabled pools nothing: remove the other fields of pooling, or use mode Transaction or Session',
  },
)

export const postgres = z.object({
  pooling: optional(
    pooling,
    'Shares connections to the server, at most limits.maxConnections of the upstream, between those of the application.',
    'mode Disabled',
  ),
  queryLog: optional(
    queryLog,
    'Writes a line for each statement: its kind, how long it took, rows and SQLSTATE; `{}` does so for all.',
    'no lines',
  ),
})
