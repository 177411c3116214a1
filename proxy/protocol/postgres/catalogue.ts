/** Reads from the catalogue of a database what its stored functions leave behind in a session, and what calls them. */
import { DOUBT } from './lexicon.ts'
import { type Effects, stronger, type Words } from './pins.ts'
import { SqlScanner } from './sql.ts'
import { hashOf } from './sql-words.ts'

/** Of objects that are not the server's own (FirstNormalObjectId). */
const OURS = 16_384

/** Languages up to this one are not read: functions of operators and casts in C are taken for harmless. */
const LANGUAGE_C = 13

const KINDS = ['proc', 'trigger', 'rewrite', 'policy', 'attrdef', 'constraint', 'event_trigger', 'inherits', 'operator']

/** One value, which is another one when something may have changed that calls or is called. */
export const FINGERPRINT: string = `select pg_catalog.concat_ws(' ', ${KINDS.map((kind) => {
  const where = kind === 'inherits' ? '' : ` where oid >= ${OURS}`
  return `(select pg_catalog.concat(pg_catalog.count(*), '-', pg_catalog.sum(pg_catalog.hashtext(t.ctid::pg_catalog.text || t.xmin::pg_catalog.text))) from pg_catalog.pg_${kind} t${where})`
}).join(
  ', ',
)}, (select pg_catalog.max(c.xmin::pg_catalog.text::pg_catalog.int8) from pg_catalog.pg_class c where c.oid >= ${OURS} and c.relkind in ('r', 'v', 'm', 'f', 'p')))`

/** A row for each language whose functions may keep variables for as long as the session lasts. */
export const KEEPING_LANGUAGES: string =
  "select lanname from pg_catalog.pg_language where lanname not in ('internal', 'c', 'sql', 'plpgsql') limit 1"

/** A body that is longer is not read. */
const MAX_BODY_BYTES = 64 * 1024
/** A database that has more is not read. */
export const MAX_CATALOGUE_BYTES: number = 16 * 1024 * 1024

/** Of the server's own: what a view or a default value may call to leave something behind. */
const TELLING: Readonly<Record<string, Effects>> = {
  set_config: DOUBT,
  setseed: DOUBT,
  query_to_xml: DOUBT,
  pg_advisory_lock: { ...DOUBT, isDoubtful: false, pin: 'advisory_lock' },
  pg_advisory_lock_shared: { ...DOUBT, isDoubtful: false, pin: 'advisory_lock' },
  pg_try_advisory_lock: { ...DOUBT, isDoubtful: false, pin: 'advisory_lock' },
  pg_try_advisory_lock_shared: { ...DOUBT, isDoubtful: false, pin: 'advisory_lock' },
  currval: { ...DOUBT, isDoubtful: false, asksSequences: true },
  lastval: { ...DOUBT, isDoubtful: false, asksSequences: true },
}

const DDL = [
  'create',
  'alter',
  'drop',
  'comment',
  'grant',
  'revoke',
  'refresh',
  'import',
  'security',
  'reindex',
  'into',
]

const list = (names: readonly string[]): string => names.map((name) => `'${name}'`).join(', ')

/**
 * Rows of four columns: `routine`, name, language and extension in one, body; or `calls`, name, name of what it calls. An empty name
 * stands for what any statement may call without naming it.
 * @param hasBodies the server knows functions whose body is stored as it was read (PostgreSQL 14)
 */
export function catalogueSql(hasBodies: boolean): string {
  const body = hasBodies
    ? `case when p.prosqlbody is null then p.prosrc else pg_catalog.pg_get_function_sqlbody(p.oid) end`
    : 'p.prosrc'
  return `
with telling as (select oid, proname from pg_catalog.pg_proc where oid < ${OURS} and proname in (${list(Object.keys(TELLING))})),
owner (classid, objid, name) as (
  select 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid, r.oid, c.relname from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class
  union all select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid, c.relname from pg_catalog.pg_attrdef a join pg_catalog.pg_class c on c.oid = a.adrelid
  union all select 'pg_catalog.pg_policy'::pg_catalog.regclass, a.oid, c.relname from pg_catalog.pg_policy a join pg_catalog.pg_class c on c.oid = a.polrelid
  union all select 'pg_catalog.pg_constraint'::pg_catalog.regclass, a.oid, c.relname from pg_catalog.pg_constraint a join pg_catalog.pg_class c on c.oid = a.conrelid
  union all select 'pg_catalog.pg_constraint'::pg_catalog.regclass, a.oid, ''::pg_catalog.name from pg_catalog.pg_constraint a where a.contypid <> 0
  union all select 'pg_catalog.pg_trigger'::pg_catalog.regclass, a.oid, c.relname from pg_catalog.pg_trigger a join pg_catalog.pg_class c on c.oid = a.tgrelid
  union all select 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, c.relname from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indrelid
  union all select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proname from pg_catalog.pg_proc p
  union all select 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, ''::pg_catalog.name from pg_catalog.pg_operator o
  union all select 'pg_catalog.pg_cast'::pg_catalog.regclass, o.oid, ''::pg_catalog.name from pg_catalog.pg_cast o
)
select 'routine', p.proname::pg_catalog.text, pg_catalog.concat(l.lanname, ' ', e.extname),
  pg_catalog.left(${body}, ${MAX_BODY_BYTES + 1})
from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e'
left join pg_catalog.pg_extension e on e.oid = d.refobjid
where p.oid >= ${OURS} and p.prokind <> 'a'
union all
select distinct 'calls', o.name::pg_catalog.text, coalesce(p.proname, c.relname)::pg_catalog.text, null
from pg_catalog.pg_depend d join owner o on o.classid = d.classid and o.objid = d.objid
left join pg_catalog.pg_proc p on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = d.refobjid
left join pg_catalog.pg_class c on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
  and d.classid in ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)
where d.objid >= ${OURS} and d.refobjid >= ${OURS} and d.deptype in ('n', 'a') and (p.oid is not null or c.oid is not null)
  and (o.name <> '' or p.prolang > ${LANGUAGE_C})
union all
select distinct 'calls', c.relname::pg_catalog.text, x.relname::pg_catalog.text, null
from pg_catalog.pg_constraint f join pg_catalog.pg_class c on c.oid = f.confrelid join pg_catalog.pg_class x on x.oid = f.conrelid
where f.contype = 'f' and (f.confdeltype in ('c', 'n', 'd') or f.confupdtype in ('c', 'n', 'd'))
union all
select distinct 'calls', c.relname::pg_catalog.text, x.relname::pg_catalog.text, null
from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhparent join pg_catalog.pg_class x on x.oid = i.inhrelid
where x.relkind in ('r', 'p', 'f')
union all
select 'calls', w.word, p.proname::pg_catalog.text, null
from pg_catalog.pg_event_trigger t join pg_catalog.pg_proc p on p.oid = t.evtfoid, unnest(array[${list(DDL)}]) w (word)
where t.evtenabled <> 'D'
union all
select 'calls', v.name, t.proname::pg_catalog.text, null
from (
  select c.relname::pg_catalog.text as name, r.ev_action::pg_catalog.text as tree
  from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class where r.oid >= ${OURS}
  union all
  select c.relname::pg_catalog.text, a.adbin::pg_catalog.text
  from pg_catalog.pg_attrdef a join pg_catalog.pg_class c on c.oid = a.adrelid where a.oid >= ${OURS}
) v join telling t on v.tree operator(pg_catalog.~~) pg_catalog.concat('%:funcid ', t.oid, ' %')`
}

/** Extensions whose functions in C leave nothing behind but what ends with the transaction. */
const HARMLESS_EXTENSIONS =
  /^(?:amcheck|bloom|btree_gin|btree_gist|citext|cube|dict_int|dict_xsyn|earthdistance|fuzzystrmatch|hstore|intarray|isn|lo|ltree|pageinspect|pg_buffercache|pg_freespacemap|pg_stat_statements|pg_trgm|pg_uuidv7|pgcrypto|pgrowlocks|pgstattuple|pg_visibility|plpgsql|postgis\w*|seg|sslinfo|tsm_\w+|unaccent|uuid-ossp|vector|xml2)$/

interface Routine {
  effects: Effects
  readonly calls: Set<number>
}

const NONE: Effects = { pin: null, parameters: 0, asksSequences: false, isDoubtful: false }

/** Collects the words of a body. */
class Collector implements Words {
  calls = new Set<number>()

  effectsOf(hash: number): null {
    this.calls.add(hash)
    return null
  }
}

const UNLOCKS = ['pg_advisory_unlock', 'pg_advisory_unlock_shared', 'pg_advisory_unlock_all'].map(hashOf)

/** Effects of each name that has any, by hashOf(). Takes the rows of catalogueSql(). */
export function readCatalogue(rows: readonly (readonly (string | null)[])[]): Map<number, Effects> {
  const routines = new Map<number, Routine>()
  const of = (name: string): Routine => {
    const hash = hashOf(name)
    let found = routines.get(hash)
    if (found === undefined) {
      found = { effects: TELLING[name] ?? NONE, calls: new Set() }
      routines.set(hash, found)
    }
    return found
  }
  for (const [kind, name, more, body] of rows) {
    const routine = of(name ?? '')
    if (kind === 'calls') {
      of(more ?? '')
      routine.calls.add(hashOf(more ?? ''))
    } else routine.effects = both(routine.effects, read(more ?? '', body ?? '', routine.calls))
  }
  spread(routines)
  const found = new Map<number, Effects>()
  for (const [hash, { effects }] of routines) if (!isNone(effects)) found.set(hash, effects)
  for (const name of Object.keys(TELLING)) found.delete(hashOf(name))
  return found
}

/** What calls something leaves behind what that leaves behind. */
function spread(routines: ReadonlyMap<number, Routine>): void {
  for (let isChanged = true; isChanged; ) {
    isChanged = false
    for (const routine of routines.values()) {
      for (const hash of routine.calls) {
        const called = routines.get(hash)
        if (called === undefined) continue
        const merged = both(routine.effects, called.effects)
        if (merged === routine.effects) continue
        routine.effects = merged
        isChanged = true
      }
    }
  }
}

const scanner = new SqlScanner()

/** @param language and the extension that it belongs to behind a space */
function read(language: string, body: string, calls: Set<number>): Effects {
  const [name, extension = ''] = language.split(' ')
  if (name === 'c' || name === 'internal') return HARMLESS_EXTENSIONS.test(extension) ? NONE : DOUBT
  // Global variables of a language stay whatever is reset.
  if (name !== 'plpgsql' && name !== 'sql') return { ...NONE, pin: 'language' }
  if (body.length > MAX_BODY_BYTES) return DOUBT
  const words = new Collector()
  words.calls = calls
  scanner.words = words
  const bytes = Buffer.from(body, 'latin1')
  scanner.beginBody()
  scanner.feed(bytes, 0, bytes.length)
  scanner.end()
  scanner.words = null
  const { pin, parameters, asksSequences } = scanner
  const unlocks = pin === 'advisory_lock' && UNLOCKS.some((hash) => calls.has(hash))
  // EXECUTE of a text, or a lock that is given back: it is not worth a connection of its own.
  const isDoubtful = pin === 'do' || unlocks
  return { pin: isDoubtful ? null : pin, parameters, asksSequences, isDoubtful }
}

/** The first one when the other one adds nothing. */
function both(one: Effects, other: Effects): Effects {
  const pin = stronger(one.pin, other.pin)
  const parameters = one.parameters | other.parameters
  const asksSequences = one.asksSequences || other.asksSequences
  const isDoubtful = one.isDoubtful || other.isDoubtful
  const adds =
    pin !== one.pin ||
    parameters !== one.parameters ||
    asksSequences !== one.asksSequences ||
    isDoubtful !== one.isDoubtful
  return adds ? { pin, parameters, asksSequences, isDoubtful } : one
}

function isNone({ pin, parameters, asksSequences, isDoubtful }: Effects): boolean {
  return pin === null && parameters === 0 && !asksSequences && !isDoubtful
}
