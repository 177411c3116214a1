/** Reads the body of a request whole, within a size and a time; what is too large is read to its end and dropped, so that the sender can read the refusal. */
import type { IncomingMessage } from 'node:http'
import type { Clock } from '../kube/clock.ts'

export type Body =
  | { readonly kind: 'body'; readonly bytes: Buffer }
  | { readonly kind: 'too-large' }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'disconnected' }

/** Most bytes that are read only to be dropped: beyond, nobody's answer is worth the reading. */
const MAX_DROPPED_BYTES = 24 * 1024 * 1024

export function readBody(
  request: IncomingMessage,
  options: { readonly maxBytes: number; readonly deadline: number; readonly clock: Clock },
): Promise<Body> {
  const { maxBytes, deadline, clock } = options
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let size = 0
    const end = (body: Body): void => {
      timer.cancel()
      request.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose)
      request.on('error', () => {}) // an error after the answer is nobody's news
      resolve(body)
    }
    const onData = (chunk: Buffer): void => {
      size += chunk.length
      if (size <= maxBytes) chunks.push(chunk)
      else chunks.length = 0
      if (size > maxBytes + MAX_DROPPED_BYTES) end({ kind: 'too-large' })
    }
    const onEnd = (): void =>
      end(size > maxBytes ? { kind: 'too-large' } : { kind: 'body', bytes: Buffer.concat(chunks) })
    const onClose = (): void => end({ kind: 'disconnected' })
    const timer = clock.after(Math.max(0, deadline - clock.now()), () => end({ kind: 'timeout' }))
    request.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose)
  })
}

/** Reads a body that nobody wants, so that its sender, who is still sending, can read the answer. */
export async function dropBody(
  request: IncomingMessage,
  options: { readonly deadline: number; readonly clock: Clock },
): Promise<void> {
  if (!request.complete) await readBody(request, { ...options, maxBytes: 0 })
}
