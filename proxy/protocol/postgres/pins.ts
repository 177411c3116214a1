/** What a statement may leave behind in the session that it runs in, and the parameters that a pool can restore. */

/** What a statement leaves behind, so that its client needs the same connection to the server again. */
export type Pin =
  | 'set'
  | 'role'
  | 'prepare'
  | 'listen'
  | 'temporary_table'
  | 'advisory_lock'
  | 'cursor'
  | 'load'
  | 'dblink'
  | 'do'
  | 'language'
  | 'other'

/** Of what DISCARD ALL does not undo: a connection that has it is closed when its client ends. */
export const CLOSING: ReadonlySet<string> = new Set<Pin>(['load', 'dblink', 'language', 'other'])

/** The one of two that counts: what closes the connection before what can be undone, then the first. */
export function stronger(one: Pin | null, other: Pin | null): Pin | null {
  if (one === null) return other
  return other !== null && CLOSING.has(other) && !CLOSING.has(one) ? other : one
}

/** What a word may mean beside what is read here: a stored function, or a table or view that calls one. */
export interface Effects {
  readonly pin: Pin | null
  /** Bits of RESTORABLE_PARAMETERS that are set. */
  readonly parameters: number
  readonly asksSequences: boolean
  /** What it leaves behind cannot be told. */
  readonly isDoubtful: boolean
}

/** Knows what words mean in a database; see Lexicon. */
export interface Words {
  /** Of a word by hashOf(). Null: none; undefined: not known. */
  effectsOf(hash: number): Effects | null | undefined
}

/** For a log line: the kind of statement, nothing of its text. */
export const PIN_TEXT: Readonly<Record<Pin, string>> = {
  set: 'SET or set_config() of a parameter that is not restored on another connection',
  role: 'SET ROLE or SET SESSION AUTHORIZATION',
  prepare: 'PREPARE',
  listen: 'LISTEN',
  temporary_table: 'a temporary table or another object in pg_temp',
  advisory_lock: 'an advisory lock of the session',
  cursor: 'DECLARE ... WITH HOLD',
  load: 'LOAD',
  dblink: 'dblink_connect()',
  do: 'DO with EXECUTE or with a body that cannot be read',
  language: 'a language that may keep variables for the session, such as PL/Perl, PL/Python or PL/Tcl',
  other: 'a statement that changes the session',
}

/** Parameters that servers of some version report (ParameterStatus). */
const REPORTED_PARAMETERS = [
  'application_name',
  'client_encoding',
  'datestyle',
  'default_transaction_read_only',
  'intervalstyle',
  'scram_iterations',
  'search_path',
  'standard_conforming_strings',
  'timezone',
] as const

/**
 * What applications and their drivers set when they connect, or around a transaction, and no server reports, or not each: the server is
 * asked what they are when one may have been set.
 */
const ASKED_PARAMETERS = [
  'bytea_output',
  'check_function_bodies',
  'client_min_messages',
  'default_transaction_deferrable',
  'default_transaction_isolation',
  'extra_float_digits',
  'idle_in_transaction_session_timeout',
  'idle_session_timeout',
  'lock_timeout',
  'row_security',
  'statement_timeout',
  'transaction_timeout',
  'xmloption',
] as const

/** Parameters that a pool can restore on another connection; a bit of each. */
export const RESTORABLE_PARAMETERS = [...REPORTED_PARAMETERS, ...ASKED_PARAMETERS] as const
