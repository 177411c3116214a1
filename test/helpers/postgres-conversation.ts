/** Conversations with a PostgreSQL that are held directly and through a proxy, to compare what is answered, message by message. */
import { message, query } from './postgres-client.ts'
import { answersTo, StreamClient } from './postgres-stream.ts'

export const LOGIN = 'user\0postgres\0database\0postgres\0\0'

/** What is sent at once, and when the direct answer to it is complete: by default when all is answered that a server answers. */
export type Step = Buffer | readonly [bytes: Buffer, isComplete: (messages: readonly string[]) => boolean]

export interface Conversation {
  /** Parameters at its begin. */
  readonly login?: string | Buffer
  readonly steps: readonly Step[]
}

export const isReady =
  (count: number) =>
  (messages: readonly string[]): boolean =>
    messages.filter((each) => each.startsWith('Z')).length >= count
export const upTo =
  (letter: string) =>
  (messages: readonly string[]): boolean =>
    messages.at(-1)?.startsWith(letter) === true
export const atEnd = (): boolean => false
export const none = (): boolean => true
export const cat = (...parts: readonly Buffer[]): Buffer => Buffer.concat(parts)
export const sqls = (...texts: readonly string[]): Conversation => ({ steps: texts.map(query) })
export const steps = (...each: readonly Step[]): Conversation => ({ steps: each })

/** @param expected what the server itself has answered to each step; null: it is the server itself */
export async function talk(at: number, { login, steps }: Conversation, expected: readonly string[][] | null) {
  const client = await new StreamClient({ port: at }).begin(login ?? LOGIN)
  const heard: string[][] = []
  try {
    for (const [n, step] of steps.entries()) {
      const [bytes, isComplete] = step instanceof Buffer ? [step, isReady(answersTo(step))] : (step as never)
      client.write(bytes)
      const wanted = expected?.[n]
      const isSame = (messages: readonly string[]): boolean =>
        wanted !== undefined && messages.length >= wanted.length && wanted.at(-1) !== 'END'
      heard.push(await client.until(expected === null ? isComplete : isSame))
      if (heard.at(-1)?.at(-1) === 'END') return heard
    }
    // Nothing more than that has come before the answer to the next question.
    client.write(query("select 'next'"))
    heard.push(await client.until(isReady(1)))
    return heard
  } finally {
    client.write(message('X', ''))
    await client.ended()
    client.socket.destroy()
  }
}
