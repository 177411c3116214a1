/** What a spec says of PostgreSQL, with every default written out. */
import { durationMs } from '../../common/duration.ts'
import type { PostgresConfig, QueryLogConfig } from '../../common/proxy-config.ts'
import { percentRatio } from '../../common/quantity.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'

/** The block of a spec; undefined where there is nothing that the sidecar does not do anyway. */
export function postgres({ postgres: given }: DefaultedSpec): PostgresConfig | undefined {
  const queryLog = queryLogOf(given?.queryLog)
  return queryLog && { queryLog }
}

function queryLogOf(given: NonNullable<DefaultedSpec['postgres']>['queryLog']): QueryLogConfig | undefined {
  if (given === undefined) return undefined
  const { minDuration, redactLiterals, sample } = given
  return { minDurationMs: durationMs(minDuration)!, redactLiterals, sample: percentRatio(sample)! }
}
