/** Prepared statements that clients share: the same text is one statement on a connection to the server, whatever clients call it. */
import { fillRandom } from '../../runtime/random.ts'
import { HEAD_BYTES, message } from './messages.ts'
import type { Effects } from './pins.ts'

/** Statements whose text is remembered for the next client that prepares it; those in use live on without that. */
const MAX_SHARED = 1000

const PREFIX_BYTES = 6
/** Made with the first statement: a sidecar of another protocol needs none. */
let prefix: string | null = null
let made = 0

/** No client can guess the name of a statement of another. */
function nextName(): Buffer {
  if (prefix === null) {
    const random = Buffer.alloc(PREFIX_BYTES)
    fillRandom(random)
    prefix = `ambassador_${random.toString('hex')}_`
  }
  made++
  return Buffer.from(`${prefix}${made}\0`)
}

export interface StatementEffects extends Effects {
  /** See SqlScanner. */
  readonly open: readonly number[]
  readonly isStored: boolean
  readonly isChange: boolean
  readonly resets: boolean
  readonly defines: boolean
}

const NONE: readonly Statement[] = []

export class Statement {
  /** On the connection to the server, with the NUL that ends it. */
  readonly name: Buffer
  /** Of its Parse message, what stands behind the name: query and types. Null: too long to keep. */
  readonly body: Buffer | null
  /** What executing it leaves behind, by the lexicon of this version. */
  effects: StatementEffects
  version: number
  readonly key: string | null
  /** Others that its text executes by their names on the connection to the server. */
  readonly uses: readonly Statement[]

  constructor(
    body: Buffer | null,
    key: string | null,
    effects: StatementEffects,
    version: number,
    uses: readonly Statement[] = NONE,
  ) {
    this.name = nextName()
    this.body = body
    this.key = key
    this.effects = effects
    this.version = version
    this.uses = uses
  }
}

/** Whether a client uses a name like ours. */
export function isOurName(name: string): boolean {
  return name.startsWith('ambassador_')
}

/** Those of one pool. */
export class Statements {
  readonly #byKey = new Map<string, Statement>()

  get(key: string): Statement | undefined {
    return this.#byKey.get(key)
  }

  add(statement: Statement): void {
    if (statement.key === null) return
    this.#byKey.set(statement.key, statement)
    if (this.#byKey.size > MAX_SHARED) this.#byKey.delete(this.#byKey.keys().next().value as string)
  }

  /**
   * The one to use in place of a statement whose plan the server refuses (a table has changed): it gets another name, so it is
   * prepared anew. Whoever still uses the old one hears of the change from the server too.
   */
  renew(old: Statement): Statement {
    const current = old.key === null ? undefined : this.#byKey.get(old.key)
    if (current !== undefined && current !== old) return current
    const fresh = new Statement(old.body, old.key, old.effects, old.version, old.uses)
    this.add(fresh)
    return fresh
  }
}

/** An ErrorResponse in which statements have the names that the client gave them; null: it names none. */
export function withNamesOf(statements: ReadonlyMap<string, Statement>, response: Buffer): Buffer | null {
  if (prefix === null || response.indexOf(prefix) < 0) return null
  let text = response.toString('latin1', HEAD_BYTES)
  for (const [name, statement] of statements) {
    const ours = statement.name.toString('latin1', 0, statement.name.length - 1)
    text = text.replaceAll(`"${ours}"`, () => `"${name}"`)
  }
  return message(response[0]!, Buffer.from(text, 'latin1'))
}
