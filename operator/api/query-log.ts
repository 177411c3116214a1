/** Which statements to a database get a line in the log, and what of them is in it. */
import { z } from 'zod'
import { doc, duration, percent } from '../../common/schema-kit.ts'

export const queryLog = z.object({
  minDuration: doc(
    duration({ zero: true }),
    'A statement that took less has no line, from its arrival at the sidecar to the end of its result there.',
  ).default('0s'),
  redactLiterals: doc(
    z.boolean(),
    'Shows ? in place of literals and leaves comments out. Values that are bound to $1, $2 and data of COPY are never shown, literals of statements about passwords, secrets and tokens neither.',
  ).default(true),
  sample: doc(percent(), 'Share of the statements that took long enough that get a line.').default('100%'),
})
