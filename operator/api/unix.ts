/** An upstream that is a Unix socket. */
import { z } from 'zod'
import { doc, rule } from '../../common/schema-kit.ts'

/** As long as a socket's address holds on Linux, in characters that need no escape anywhere. */
const SOCKET_PATTERN = '^(/[a-zA-Z0-9._@:+-]+)+$'
const SOCKET_REMEDY = 'write it from the root, in letters, digits and ._@:+-, such as /run/db/db.sock'

export const unix = z.object({
  path: doc(
    rule(z.string().max(107), {
      cel: `self.matches('${SOCKET_PATTERN}') && !self.matches('/[.][.]?(/|$)')`,
      holds: (text) => new RegExp(SOCKET_PATTERN).test(text) && !/\/[.][.]?(\/|$)/.test(text),
      message: `not the path of a socket: ${SOCKET_REMEDY}`,
      says: {
        cel: `"'" + self + "' is not the path of a socket: ${SOCKET_REMEDY}"`,
        text: (text) => `'${text}' is not the path of a socket: ${SOCKET_REMEDY}`,
      },
    }),
    'Path of the socket, from the root.',
  ),
})
