/** Cuts a stream of bytes into lines. */

/** Longest line that is kept: an object is at most 1.5 MiB in etcd, and a watch event wraps one. */
const MAX_LINE_BYTES = 16 * 1024 * 1024

/**
 * Yields each complete line without its line feed. What follows the last line feed when the stream ends is a torn
 * line: it is not yielded, because nobody knows what is missing.
 * @throws what the stream throws, and {Error} for a line above MAX_LINE_BYTES
 */
export async function* lines(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let parts: Buffer[] = []
  let held = 0
  for await (const chunk of stream) {
    let from = 0
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
      const piece = chunk.subarray(from, at)
      from = at + 1
      yield parts.length === 0 ? piece.toString('utf8') : Buffer.concat([...parts, piece]).toString('utf8')
      parts = []
      held = 0
    }
    if (from < chunk.length) {
      held += chunk.length - from
      if (held > MAX_LINE_BYTES) throw new Error(`a line is longer than ${MAX_LINE_BYTES} bytes`)
      parts.push(chunk.subarray(from))
    }
  }
}
