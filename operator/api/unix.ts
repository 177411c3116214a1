/** Unix sockets: one that an upstream is, and one that the application connects to. */
import { z } from 'zod'
import { doc, type RuleOptions, rule } from '../../common/schema-kit.ts'

/** As long as a socket's address holds on Linux, in characters that need no escape anywhere. */
const SOCKET_PATTERN = '^(/[a-zA-Z0-9._@:+-]+)+$'
const SOCKET_REMEDY = 'write it from the root, in letters, digits and ._@:+-, such as /run/db/db.sock'

const socketPath = () =>
  rule(z.string().max(107), {
    cel: `self.matches('${SOCKET_PATTERN}') && !self.matches('/[.][.]?(/|$)')`,
    holds: (text) => new RegExp(SOCKET_PATTERN).test(text) && !/\/[.][.]?(\/|$)/.test(text),
    message: `not the path of a socket: ${SOCKET_REMEDY}`,
    says: {
      cel: `"'" + self + "' is not the path of a socket: ${SOCKET_REMEDY}"`,
      text: (text) => `'${text}' is not the path of a socket: ${SOCKET_REMEDY}`,
    },
  })

export const unix = z.object({
  path: doc(socketPath(), 'Path of the socket, from the root.'),
})

/** Directories that images have, and those directly below the root: a volume there would hide what containers need. */
const TAKEN_PATTERN =
  '^/[^/]+(/[^/]+)?$|^/(bin|boot|dev|etc|lib|lib32|lib64|proc|sbin|sys|usr)/|^/var/[^/]+/[^/]+$|^/(var/)?run/secrets/'
const TAKEN_REMEDY =
  'its directory is shared by the containers of the pod, so use one that nothing else is in, such as /run/payments/payments.sock'

export const listenUnix = z.object({
  path: doc(
    rule(socketPath(), {
      cel: `!self.matches('${TAKEN_PATTERN}')`,
      holds: (text) => !new RegExp(TAKEN_PATTERN).test(text),
      message: `not in a directory of its own: ${TAKEN_REMEDY}`,
      says: {
        cel: `"'" + self + "' is not in a directory of its own: ${TAKEN_REMEDY}"`,
        text: (text) => `'${text}' is not in a directory of its own: ${TAKEN_REMEDY}`,
      },
    }),
    'Path of the socket, from the root, in a directory that nothing else is in: a volume is mounted there in every container of the pod. For PostgreSQL it ends with `.s.PGSQL.5432`, the name that its clients look for in a directory.',
  ),
})

/** The name that libpq makes of a directory and a port. */
const PGSQL_PATTERN = '/[.]s[.]PGSQL[.][0-9]{1,5}$'

interface SocketSpec {
  readonly protocol: string
  readonly listen: { readonly unix?: { readonly path: string } | undefined }
  readonly upstreams: readonly { readonly unix?: { readonly path: string } | undefined }[]
}

/** What the socket that is listened on has to do with the rest of a spec. */
export const listenUnixRules: readonly RuleOptions<SocketSpec>[] = [
  {
    cel: `self.protocol != 'PostgreSQL' || !has(self.listen.unix) || self.listen.unix.path.matches('${PGSQL_PATTERN}')`,
    holds: ({ protocol, listen }) =>
      protocol !== 'PostgreSQL' || listen.unix === undefined || new RegExp(PGSQL_PATTERN).test(listen.unix.path),
    field: ['listen', 'unix', 'path'],
    message: 'clients of PostgreSQL look for a name of their own in a directory: end the path with /.s.PGSQL.5432',
  },
  {
    cel: '!has(self.listen.unix) || !self.upstreams.exists(u, has(u.unix) && u.unix.path == self.listen.unix.path)',
    holds: ({ listen, upstreams }) =>
      listen.unix === undefined || !upstreams.some((each) => each.unix?.path === listen.unix?.path),
    field: ['upstreams'],
    message:
      'an upstream is the socket that the Ambassador listens on, so it would call itself: change one of the two paths',
  },
]
