/** Conversations of several connections with a Redis server, written as lines, had with the server itself and through sidecars in front of it. */
import { splitInline } from '../../proxy/protocol/redis/inline.ts'
import { TestClient } from './tcp.ts'

/**
 * What is done, a line each; A to H are connections, each opened when it is first named, S is one to the server itself.
 *
 *     A: SET a 1 ; GET a     sends the commands in one write, and waits for as many values
 *     A~ BLPOP queue 0       sends, and does not wait
 *     A< 2                   waits for two values (or one) that were asked for before, or that nobody asked for
 *     A|                     half-closes, and waits for the end
 *     A.                     waits for the end
 *     A!                     breaks the connection off
 *     A= id CLIENT ID        keeps the number that is answered: $id stands for it from then on
 *     S: SET a 1             told to the server directly; what it says is not compared
 *     S? INFO clients => blocked_clients:1     asks again until what it says contains that
 */
export type Script = string

/** How a connection is made, and what is said on it before the first line, without being compared. */
export interface Side {
  readonly port: number
  readonly preamble: readonly string[]
}

/** A command as drivers send it; a character is a byte. */
export function wire(line: string): string {
  const words = splitInline(line)
  if (words === null) throw new Error(`quotes are not balanced: ${line}`)
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word.toString('latin1')}\r\n`).join('')}`
}

/** Where the value that begins at `at` ends, whatever its type; -1: it is not complete. */
export function valueEnd(text: string, at: number): number {
  const line = text.indexOf('\r\n', at)
  if (line < 0) return -1
  const type = text[at]!
  const count = Number(text.slice(at + 1, line))
  if ('+-:_#,('.includes(type) || count < 0) return line + 2
  if ('$=!'.includes(type)) return line + 2 + count + 2 <= text.length ? line + 2 + count + 2 : -1
  if (!'*~>%|'.includes(type))
    throw new Error(`no value of Redis begins with ${JSON.stringify(text.slice(at, at + 40))}`)
  let end = line + 2
  for (let left = '%|'.includes(type) ? 2 * count : count; left > 0 && end > 0; left--) end = valueEnd(text, end)
  // An attribute belongs to the value behind it.
  return type === '|' && end > 0 ? valueEnd(text, end) : end
}

/** Of what a server says of itself and of connections: what is the same each time. */
function withoutChance(text: string): string {
  const value = text.replace(/(\$2\r\nid\r\n:)\d+/g, '$1N')
  if (/^[$=]\d+\r\n(txt:)?# /.test(value)) return `${/# \w+/.exec(value)![0]} …`
  if (!value.includes(' laddr=')) return value.replace(/^\+\d+\.\d+ \[(\d+) .*?\]/, '+time [$1]')
  return [...value.matchAll(/ (?:name|flags|db|sub|psub|ssub|multi|user|resp|cmd)=\S*/g)].join('')
}

/** What MONITOR shows of connections that the sidecar makes ready, and of Sentinels that look after the server. */
const OTHERS = /^\+\d+\.\d+ \[.*?\] "(AUTH|PING|ROLE|INFO|CLIENT|SUBSCRIBE|PUBLISH" "__sentinel__:hello)"/

/** A value that never comes is told as the end of its connection. */
const PATIENCE_MS = 10_000

/** A connection that is read value by value. */
export class Talker {
  readonly client: TestClient
  #text = ''
  #seen = 0
  #at = 0

  constructor(port: number) {
    this.client = new TestClient({ port })
    this.client.socket.setNoDelay(true)
  }

  send(bytes: string): void {
    this.client.socket.write(bytes, 'latin1')
  }

  /** The next value as it came. Fails when the connection ends before. */
  async value(): Promise<string> {
    for (;;) {
      if (this.#seen < this.client.length) {
        this.#text = this.client.text
        this.#seen = this.client.length
      }
      const end = valueEnd(this.#text, this.#at)
      if (end > 0) {
        const value = this.#text.slice(this.#at, end)
        this.#at = end
        if (OTHERS.test(value)) continue
        return value
      }
      const patience = setTimeout(() => this.client.socket.destroy(), PATIENCE_MS)
      try {
        await this.client.read(this.#seen + 1)
      } finally {
        clearTimeout(patience)
      }
    }
  }

  async ask(line: string): Promise<string> {
    this.send(wire(line))
    return this.value()
  }

  /** Several in one write. */
  async askAll(lines: readonly string[]): Promise<string[]> {
    this.send(lines.map(wire).join(''))
    const values: string[] = []
    for (const _ of lines) values.push(await this.value())
    return values
  }

  /** What came until the other side ended it, behind the values that were read. */
  async rest(): Promise<string> {
    await this.client.ended()
    return this.client.text.slice(this.#at)
  }
}

/** Has the conversation. Returns what was said, by whom, as it came. @param server the port for S */
export async function converse(script: Script, side: Side, server: number): Promise<string[]> {
  const talkers = new Map<string, Talker>()
  const said: string[] = []
  const numbers = new Map<string, string>()
  const of = async (name: string): Promise<Talker> => {
    const known = talkers.get(name)
    if (known !== undefined) return known
    const talker = new Talker(name === 'S' ? server : side.port)
    talkers.set(name, talker)
    if (name !== 'S') for (const line of side.preamble) await talker.ask(line)
    return talker
  }
  try {
    for (const line of script.split('\n').map((each) => each.trim())) {
      if (line === '') continue
      const found = /^([A-HS])([:~<|.!?=])\s*(.*)$/.exec(line)
      if (found === null) throw new Error(`not a line of a conversation: ${line}`)
      const [, name, verb, rest] = found as unknown as [string, string, string, string]
      let text = rest
      for (const [word, number] of numbers) text = text.replaceAll(`$${word}`, number)
      const talker = await of(name)
      const tell = (what: string) => {
        let shown = withoutChance(what)
        for (const [word, number] of numbers) shown = shown.replaceAll(`:${number}\r`, `:$${word}\r`)
        if (name !== 'S') said.push(`${name} ${shown}`)
      }
      try {
        if (verb === '=') {
          const [word, ...question] = text.split(' ')
          numbers.set(word!, (await talker.ask(question.join(' '))).slice(1, -2))
        } else if (verb === '?') {
          const [question, wanted] = text.split(' => ') as [string, string]
          const until = performance.now() + PATIENCE_MS
          for (;;) {
            const answer = await talker.ask(question)
            if (answer.includes(wanted)) break
            if (performance.now() > until) throw new Error(`${line}: the last answer is ${answer}`)
            await new Promise((resolve) => setTimeout(resolve, 2))
          }
        } else if (verb === ':' || verb === '~') {
          const lines = text.split(' ; ')
          talker.send(lines.map(wire).join(''))
          if (verb === ':') for (const _ of lines) tell(await talker.value())
        } else if (verb === '<') {
          for (let left = Number(text || 1); left > 0; left--) tell(await talker.value())
        } else if (verb === '!') talker.client.socket.resetAndDestroy()
        else {
          if (verb === '|') talker.client.end()
          tell(`ends after ${await talker.rest()}`)
        }
      } catch (error) {
        if (talker.client.error === null && !/^closed after/.test((error as Error).message)) throw error
        tell('is closed')
      }
    }
  } finally {
    for (const { client } of talkers.values()) client.socket.destroy()
  }
  return said
}
