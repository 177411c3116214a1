/** What a spec says of PostgreSQL alone. */
import { z } from 'zod'
import { optional } from '../../common/schema-kit.ts'
import { queryLog } from './query-log.ts'

export const postgres = z.object({
  queryLog: optional(
    queryLog,
    'Writes a line for each statement: its kind, how long it took, rows and SQLSTATE; `{}` does so for all.',
    'no lines',
  ),
})
