/** What a spec says of PostgreSQL, with every default written out. */
import { durationMs } from '../../common/duration.ts'
import type { PostgresConfig, QueryLogConfig } from '../../common/proxy-config.ts'
import { percentRatio } from '../../common/quantity.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'

const QUEUE_MS = 30_000
const IDLE_MS = 600_000
const LIFETIME_MS = 3_600_000
const STATEMENTS = 200

/** The block of a spec; undefined where there is nothing that the sidecar does not do anyway. */
export function postgres({ postgres: given }: DefaultedSpec): PostgresConfig | undefined {
  const pooling = poolingOf(given?.pooling)
  const queryLog = queryLogOf(given?.queryLog)
  if (pooling === undefined && queryLog === undefined) return undefined
  return { ...(pooling && { pooling }), ...(queryLog && { queryLog }) }
}

function poolingOf(given: NonNullable<DefaultedSpec['postgres']>['pooling']): PostgresConfig['pooling'] {
  if (given === undefined || given.mode === 'Disabled') return undefined
  const limit = (text: string | undefined, otherwise: number) => (text ? durationMs(text)! || null : otherwise)
  return {
    mode: given.mode,
    queueTimeoutMs: given.queueTimeout ? durationMs(given.queueTimeout)! : QUEUE_MS,
    idleTimeoutMs: limit(given.idleTimeout, IDLE_MS),
    maxLifetimeMs: limit(given.maxLifetime, LIFETIME_MS),
    maxPreparedStatements: given.maxPreparedStatements ?? STATEMENTS,
  }
}

function queryLogOf(given: NonNullable<DefaultedSpec['postgres']>['queryLog']): QueryLogConfig | undefined {
  if (given === undefined) return undefined
  const { minDuration, redactLiterals, sample } = given
  return { minDurationMs: durationMs(minDuration)!, redactLiterals, sample: percentRatio(sample)! }
}
