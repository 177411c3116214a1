/** The commands of Redis as the session needs to tell them apart, found by the bytes of their name. */

/** What a command does to the connection, beyond asking for one reply. */
export const Kind = {
  plain: 0,
  /** Its arguments are looked at before it is sent. */
  auth: 1,
  hello: 2,
  select: 3,
  client: 4,
  reset: 5,
  /** Some of its forms get no reply. */
  replconf: 6,
  /** QUIT, and SHUTDOWN when it succeeds: the server closes the connection. */
  quit: 7,
  multi: 8,
  /** EXEC and DISCARD: the transaction and the watch are over. */
  exec: 9,
  watch: 10,
  unwatch: 11,
  /** Its replies are one for each channel, or pushes in RESP3. */
  subscribe: 12,
  unsubscribe: 13,
  /** From here on the connection carries what nobody asked for. */
  monitor: 14,
  /** The connection becomes one of replication: its bytes are not RESP any more. */
  replication: 15,
  /** May wait for as long as it likes. */
  blocking: 16,
} as const
export type Kind = (typeof Kind)[keyof typeof Kind]

export interface Command {
  /** As metrics write it, in lower case. */
  readonly name: string
  readonly kind: Kind
  /** Its number, for cells; 0 is OTHER. */
  readonly index: number
}

/** Kinds of which the whole command is gathered, so that its arguments can be read or replaced. */
export function isGathered(kind: Kind): boolean {
  return kind >= Kind.auth && kind <= Kind.replconf
}

const SPECIAL: Readonly<Record<string, Kind>> = {
  auth: Kind.auth,
  hello: Kind.hello,
  select: Kind.select,
  client: Kind.client,
  reset: Kind.reset,
  replconf: Kind.replconf,
  quit: Kind.quit,
  shutdown: Kind.quit,
  multi: Kind.multi,
  exec: Kind.exec,
  discard: Kind.exec,
  watch: Kind.watch,
  unwatch: Kind.unwatch,
  subscribe: Kind.subscribe,
  psubscribe: Kind.subscribe,
  ssubscribe: Kind.subscribe,
  unsubscribe: Kind.unsubscribe,
  punsubscribe: Kind.unsubscribe,
  sunsubscribe: Kind.unsubscribe,
  monitor: Kind.monitor,
  sync: Kind.replication,
  psync: Kind.replication,
  blpop: Kind.blocking,
  brpop: Kind.blocking,
  brpoplpush: Kind.blocking,
  blmove: Kind.blocking,
  blmpop: Kind.blocking,
  bzpopmin: Kind.blocking,
  bzpopmax: Kind.blocking,
  bzmpop: Kind.blocking,
  xread: Kind.blocking,
  xreadgroup: Kind.blocking,
  wait: Kind.blocking,
  waitaof: Kind.blocking,
}

const PLAIN =
  'acl append asking bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos cluster command config copy dbsize debug decr ' +
  'decrby del delex digest dump echo eval eval_ro evalsha evalsha_ro exists expire expireat expiretime failover fcall fcall_ro ' +
  'flushall flushdb function geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch ' +
  'geosearchstore get getbit getdel getex getrange getset hdel hexists hexpire hexpireat hexpiretime hget hgetall hgetdel hgetex ' +
  'hincrby hincrbyfloat hkeys hlen hmget hmset hpersist hpexpire hpexpireat hpexpiretime hpttl hrandfield hscan hset hsetex hsetnx ' +
  'hstrlen httl hvals incr incrby incrbyfloat info keys lastsave latency lcs lindex linsert llen lmove lmpop lolwut lpop lpos lpush ' +
  'lpushx lrange lrem lset ltrim memory mget migrate module move mset msetex msetnx object persist pexpire pexpireat pexpiretime ' +
  'pfadd pfcount pfdebug pfmerge pfselftest ping psetex pttl publish pubsub randomkey readonly readwrite rename renamenx ' +
  'replicaof restore restore-asking role rpop rpoplpush rpush rpushx sadd save scan scard script sdiff sdiffstore set setbit setex ' +
  'setnx setrange sinter sintercard sinterstore sismember slaveof slowlog smembers smismember smove sort sort_ro spop ' +
  'spublish srandmember srem sscan strlen substr sunion sunionstore swapdb time touch ttl type unlink vadd vcard vdim vemb vgetattr ' +
  'vinfo vismember vlinks vrandmember vrem vsetattr vsim xack xackdel xadd xautoclaim xclaim xdel xdelex xgroup xinfo xlen xpending ' +
  'xrange xrevrange xsetid xtrim zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore ' +
  'zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank ' +
  'zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore ' +
  'json.get json.set json.del json.mget json.type ft.search ft.create ft.info ft.aggregate bf.add bf.exists bf.madd bf.mexists ' +
  'cf.add cf.exists ts.add ts.get ts.range ts.mrange ts.create ts.madd topk.add cms.incrby'

/** A command that the table does not have: of a module, of a newer server, or not one at all. */
export const OTHER: Command = { name: 'other', kind: Kind.plain, index: 0 }

/** A line that is no command at all, after which the server takes none. */
export const BROKEN: Command = { name: 'other', kind: Kind.quit, index: 0 }

/** The longest name that is looked up. */
export const MAX_NAME = 24

/** A letter in upper and in lower case is the same number; so are a few control characters and what stands in names, which does no harm. */
const FOLD = 0xdf

const SLOTS = 2048
const table: (Command | undefined)[] = []
const folded: Uint8Array[] = []

/** Null until somebody speaks Redis: most sidecars never do. */
let all: readonly Command[] | null = null

/** Every command of the table, by its index. */
export function commands(): readonly Command[] {
  all ??= build()
  return all
}

function build(): Command[] {
  const found = [OTHER]
  for (let slot = 0; slot < SLOTS; slot++) table.push(undefined)
  folded.push(new Uint8Array(0))
  for (const name of [...Object.keys(SPECIAL), ...PLAIN.split(' ')]) {
    const bytes = Uint8Array.from(Buffer.from(name), (byte) => byte & FOLD)
    const command = { name, kind: SPECIAL[name] ?? Kind.plain, index: found.length }
    found.push(command)
    folded.push(bytes)
    let slot = hashOf(bytes, 0, bytes.length)
    while (table[slot] !== undefined) slot = (slot + 1) & (SLOTS - 1)
    table[slot] = command
  }
  return found
}

function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = end - start
  for (let at = start; at < end; at++) hash = (Math.imul(hash, 31) + (bytes[at]! & FOLD)) | 0
  return (hash ^ (hash >>> 11)) & (SLOTS - 1)
}

/** The command whose name is bytes [start, end), in any case. */
export function findCommand(bytes: Uint8Array, start: number, end: number): Command {
  if (end - start > MAX_NAME) return OTHER
  if (all === null) commands()
  let slot = hashOf(bytes, start, end)
  for (;;) {
    const command = table[slot]
    if (command === undefined) return OTHER
    if (isName(folded[command.index]!, bytes, start, end)) return command
    slot = (slot + 1) & (SLOTS - 1)
  }
}

function isName(name: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (name.length !== end - start) return false
  for (let at = 0; at < name.length; at++) if (name[at] !== (bytes[start + at]! & FOLD)) return false
  return true
}
