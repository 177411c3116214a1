/**
 * An LDAP server that knows one thing: whether a password is right (a simple bind, RFC 4511 section 4.2). A real PostgreSQL asks it,
 * so that its passwords are tokens of which each is another, as those of the clouds' databases are.
 */
import { tcpServer } from './tcp.ts'

/** Tags and results of BER that are used. */
const SEQUENCE = 0x30
const BIND_RESPONSE = 0x61
const SIMPLE = 0x80
const SUCCESS = 0
const INVALID_CREDENTIALS = 49

/** `accepts` is asked for each bind with the name and the password that came. */
export async function passwordServer(accepts: (name: string, password: string) => boolean, ends: (() => unknown)[]) {
  const server = await tcpServer((socket) => {
    let bytes = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
      for (let message = element(bytes); message !== null; message = element(bytes)) {
        bytes = bytes.subarray(message.end)
        const id = element(message.content)!
        const operation = element(message.content.subarray(id.end))!
        if (operation.tag !== 0x60) {
          socket.end()
          return
        }
        const version = element(operation.content)!
        const name = element(operation.content.subarray(version.end))!
        const proof = element(operation.content.subarray(version.end + name.end))!
        const isRight = proof.tag === SIMPLE && accepts(name.content.toString(), proof.content.toString())
        const result = [0x0a, 1, isRight ? SUCCESS : INVALID_CREDENTIALS, 4, 0, 4, 0]
        const body = [2, id.content.length, ...id.content, BIND_RESPONSE, result.length, ...result]
        socket.write(Buffer.from([SEQUENCE, body.length, ...body]))
      }
    })
  })
  ends.push(() => server.close())
  return server
}

/** The first element of some bytes; null when it is not complete. */
function element(bytes: Buffer): { tag: number; content: Buffer; end: number } | null {
  if (bytes.length < 2) return null
  let length = bytes[1]!
  let from = 2
  if (length > 0x7f) {
    const count = length & 0x7f
    if (bytes.length < 2 + count) return null
    length = bytes.readUIntBE(2, count)
    from += count
  }
  if (bytes.length < from + length) return null
  return { tag: bytes[0]!, content: bytes.subarray(from, from + length), end: from + length }
}
