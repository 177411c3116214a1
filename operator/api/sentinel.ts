/** An upstream that the Sentinels of a Redis know. */
import { z } from 'zod'
import { SENTINEL_ROLES } from '../../common/proxy-config.ts'
import { doc, host, listMap, optional, port, rule, secretKeyRef } from '../../common/schema-kit.ts'
import { tlsFields } from './tls.ts'

/** What a connection to Redis or to a Sentinel logs in by. */
export const redisAuth = z.object({
  username: optional(
    rule(z.string().min(1).max(256), {
      cel: "!self.matches('[\\\\x00-\\\\x20\\\\x7f]')",
      holds: (text) => !/[\x00-\x20\x7f]/.test(text),
      message: 'has a space or a control character, which no user of Redis has: correct it',
    }),
    'User of the ACL.',
    'none: the password of the default user',
  ),
  password: doc(
    z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the password.') }),
    'Password; connections log in again when it changes.',
  ),
})

/** As in sentinel.conf. */
const MASTER_PATTERN = '^[A-Za-z0-9._-]+$'
const MASTER_REMEDY = 'use the name of `sentinel monitor`, such as mymaster'

const masterName = rule(z.string().max(128), {
  cel: `self.matches('${MASTER_PATTERN}')`,
  holds: (text) => new RegExp(MASTER_PATTERN).test(text),
  message: `not the name of a master: ${MASTER_REMEDY}`,
  says: {
    cel: `"'" + self + "' is not the name of a master: ${MASTER_REMEDY}"`,
    text: (text) => `'${text}' is not the name of a master: ${MASTER_REMEDY}`,
  },
})

const sentinelTls = rule(tlsFields.omit({ negotiation: true }), {
  cel: '!has(self.insecureSkipVerify) || !has(self.ca)',
  holds: (value) => value.insecureSkipVerify === undefined || value.ca === undefined,
  field: ['ca'],
  message: 'ca does nothing with insecureSkipVerify: remove one of the two',
})

export const sentinel = z.object({
  masterName: doc(masterName, 'Name that the Sentinels have for the master, that of `sentinel monitor`.'),
  sentinels: doc(
    listMap(
      z.object({
        host: doc(host(), 'DNS name or IP address. Each address of a name is a Sentinel.'),
        port: doc(port(), 'TCP port, 26379 as a rule.'),
      }),
      ['host', 'port'],
      16,
    ).min(1),
    'Sentinels to begin with; those that they know are learned. More than half of them must agree before traffic goes anywhere.',
  ),
  role: doc(
    z.enum(SENTINEL_ROLES),
    'Master is the one that takes writes; Replica is every replica whose link to the master is up, balanced. Each server is asked for its role before it gets traffic.',
  ).default('Master'),
  auth: optional(
    z.object({ redis: doc(redisAuth, 'User and password of the Sentinels, which may differ from those of Redis.') }),
    'Credential that the sidecar logs in to the Sentinels by; that of Redis is `auth` of the upstream.',
    'none',
  ),
  tls: optional(
    sentinelTls,
    'TLS to the Sentinels, from the first byte, as `tls` of the upstream is to Redis.',
    'plain text',
  ),
})
