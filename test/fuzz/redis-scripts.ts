/** Random conversations with a Redis server that end with a half-close, and whatever comes back is the same each time. */
import { wire } from '../helpers/redis-beside.ts'
import type { SeededRandom } from './random.ts'

/** Commands whose replies depend on nothing but those before them: none waits, for a server drops what it has to say to a client that has left a wait. */
const LINES =
  'PING|PING x|ECHO "a\\r\\nb"|GET a|SET a 1|SET b "\\x00\\xff"|GET b|DEL a|INCR a|APPEND a 1|MGET a b c|RPUSH l x y|LPOP l|LRANGE l 0 -1|' +
  'HSET h f v|HGETALL h|ZADD z 1.5 m|ZRANGE z 0 -1 WITHSCORES|SADD s m|SMEMBERS s|XADD x 1-1 f v|XRANGE x - +|XREAD STREAMS x 0|' +
  'SELECT 0|SELECT 1|SELECT 99|SELECT x|HELLO|HELLO 2|HELLO 3|HELLO 9|HELLO 3 SETNAME w|CLIENT SETNAME w|CLIENT GETNAME|CLIENT NOSUCH|' +
  'CLIENT REPLY ON|CLIENT REPLY OFF|CLIENT REPLY SKIP|CLIENT REPLY|CLIENT NO-EVICT on|CLIENT TRACKING on|CLIENT TRACKING off|' +
  'CLIENT CACHING yes|MULTI|MULTI x|EXEC|EXEC x|DISCARD|WATCH a|WATCH|UNWATCH|RESET|RESET x|SUBSCRIBE a|SUBSCRIBE a b|UNSUBSCRIBE|UNSUBSCRIBE a|' +
  'PSUBSCRIBE p*|PUNSUBSCRIBE|SSUBSCRIBE q|SUNSUBSCRIBE|PUBLISH a x|PUBLISH pa x|SPUBLISH q x|BLPOP l -1|LMPOP 1 l LEFT|' +
  'EVAL "return {1,\'two\',{}}" 0|EVAL "return redis.call(\'SET\', \'a\', 2)" 0|EVAL "nonsense" 0|EVALSHA ffff 0|WAIT 0 0|' +
  'REPLCONF ACK 1|REPLCONF GETACK *|REPLCONF capa eof|REPLCONF|PSYNC x|READONLY|ASKING|NOSUCH a b|GET|SET a|DEBUG PROTOCOL push|' +
  'DEBUG PROTOCOL attrib|DEBUG PROTOCOL map|DEBUG PROTOCOL null|SHUTDOWN x|FAILOVER ABORT|OBJECT HELP|SETRANGE big 20000 x|GET big'

const COMMANDS = LINES.split('|').map(wire)
const ODD = [
  '*0\r\n',
  '*-1\r\n',
  '\r\n',
  'PING\r\n',
  'set a "b c"\r\n',
  'get\ta\n',
  '*2\r\n$3\r\nGET\r\n$1\r\n',
  '*1\r\n$4\r\nPI',
]

export interface RedisScript {
  /** A character is a byte. */
  readonly bytes: string
  /** Where it is cut into writes. */
  readonly cuts: readonly number[]
}

export function makeScript(random: SeededRandom): RedisScript {
  let bytes = ''
  for (let left = 1 + random.below(14); left > 0; left--) {
    const isOdd = random.below(20) === 0
    const part = random.pick(isOdd ? ODD : COMMANDS)
    bytes += part
    // What is not whole has nothing behind it.
    if (!part.endsWith('\n') || part.endsWith('$1\r\n')) break
  }
  const cuts = Array.from({ length: random.below(4) }, () => random.below(bytes.length)).sort((a, b) => a - b)
  return { bytes, cuts }
}
