/** Options that are ports. */
import { UsageError } from './exit.ts'

/**
 * The port that an option or variable says.
 * @throws {UsageError} when it is none; 0 is one, a free one
 */
export function portOption(option: string, value: string | undefined, fallback: number): number {
  if (value === undefined || value === '') return fallback
  const number = /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN
  if (!(number <= 65535))
    throw new UsageError(`${option}: '${value}' is not a port, use 1 to 65535, or 0 for a free one`)
  return number
}
