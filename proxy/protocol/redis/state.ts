/** What commands change of a connection, as commands that make another one like it; and logins with the credential in place of the application's. */
import { encodeCommand } from '../../upstream/redis/resp.ts'
import { Kind } from './commands.ts'

/** What a command changes when it succeeds. */
export interface Effect {
  /** By what they set; null: it is as in a new connection again. */
  readonly replays: readonly (readonly [key: string, command: Buffer | null])[]
  /** Nothing that is sent makes another connection like this. */
  readonly pins: boolean
}

const NOTHING: Effect = { replays: [], pins: false }
/** Of a command whose effect nobody can tell. */
export const PINS: Effect = { replays: [], pins: true }

/** Of CLIENT: what a connection is told about itself once, in its newest words. */
const SETTINGS: ReadonlySet<string> = new Set(['no-evict', 'no-touch', 'capa', 'import-source', 'maint_notifications'])

/** @param isInjected the credential is ours, whatever the application logs in with */
export function effectOf(kind: Kind, args: readonly Buffer[], isInjected: boolean): Effect {
  const command = encodeCommand(args)
  const word = args[1]?.toString('latin1').toLowerCase() ?? ''
  switch (kind) {
    case Kind.select:
      return { replays: [['select', command]], pins: false }
    case Kind.auth:
      return isInjected ? NOTHING : { replays: [['auth', command]], pins: false }
    case Kind.hello:
      return { replays: helloReplays(args, isInjected), pins: false }
    case Kind.client:
      if (word === 'setname') return { replays: [['name', command]], pins: false }
      if (word === 'setinfo')
        return { replays: [[`info ${args[2]?.toString('latin1').toLowerCase()}`, command]], pins: false }
      if (SETTINGS.has(word)) return { replays: [[word, command]], pins: false }
      return word === 'tracking' || word === 'caching' ? PINS : NOTHING
    default:
      return NOTHING
  }
}

function helloReplays(args: readonly Buffer[], isInjected: boolean): Effect['replays'] {
  const replays: [string, Buffer][] = []
  if (args[1] !== undefined) replays.push(['hello', encodeCommand(['HELLO', args[1]])])
  for (let at = 2; at < args.length; ) {
    const option = args[at]!.toString('latin1').toLowerCase()
    if (option === 'auth') {
      if (!isInjected && at + 2 < args.length)
        replays.push(['auth', encodeCommand(['AUTH', args[at + 1]!, args[at + 2]!])])
      at += 3
    } else {
      if (option === 'setname' && at + 1 < args.length)
        replays.push(['name', encodeCommand(['CLIENT', 'SETNAME', args[at + 1]!])])
      at += 2
    }
  }
  return replays
}

/** A command that makes a new connection like the one before. */
export interface Replay {
  readonly command: Buffer
  /** Without it what the application sends would go wrong: to another database, or by another user. */
  readonly isVital: boolean
}

const VITAL = ['auth', 'hello', 'select']

/** The commands for a new connection, the login before all. */
export function replayOf(replays: ReadonlyMap<string, Buffer>): readonly Replay[] {
  const vital = VITAL.flatMap((key) => replays.get(key) ?? [])
  const others = [...replays].flatMap(([key, command]) => (VITAL.includes(key) ? [] : [command]))
  return [
    ...vital.map((command) => ({ command, isVital: true })),
    ...others.map((command) => ({ command, isVital: false })),
  ]
}

/** Whether a CLIENT decides which commands get a reply. */
export function isReplyMode(args: readonly Buffer[]): boolean {
  return args.length === 3 && /^reply$/i.test(args[1]!.toString('latin1'))
}

/** Whether a REPLCONF is one that a server takes in silence. */
export function isUnanswered(args: readonly Buffer[]): boolean {
  if (args.length % 2 === 0) return false
  return args.some((arg, at) => at % 2 === 1 && /^(get)?ack$/i.test(arg.toString('latin1')))
}

/** RESET, and the login after it. */
export function resetWith(line: Buffer): Buffer {
  const reset = encodeCommand(['RESET'])
  const both = Buffer.allocUnsafe(reset.length + line.length)
  reset.copy(both)
  line.copy(both, reset.length)
  return both
}

/** AUTH with our credential; as it is (null) when the server will refuse its form. */
export function injectedAuth(line: Buffer, args: readonly Buffer[]): Buffer | null {
  return args.length === 2 || args.length === 3 ? line : null
}

/** HELLO with our credential in place of the one in it. */
export function injectedHello(line: Buffer, args: readonly Buffer[]): Buffer | null {
  const changed = [...args]
  for (let at = 2; at < changed.length; ) {
    const isAuth = changed[at]!.toString('latin1').toLowerCase() === 'auth'
    if (isAuth && at + 2 < changed.length) {
      const own = argsOf(line)
      const [username, password] = own.length === 3 ? [own[1]!, own[2]!] : [Buffer.from('default'), own[1]!]
      changed[at + 1] = username
      changed[at + 2] = password
      return encodeCommand(changed)
    }
    at += isAuth ? 3 : 2
  }
  return null
}

/** The arguments of a command that encodeCommand() made. */
function argsOf(command: Buffer): Buffer[] {
  const args: Buffer[] = []
  let at = command.indexOf('\r\n') + 2
  while (at < command.length) {
    const end = command.indexOf('\r\n', at)
    const length = Number(command.toString('latin1', at + 1, end))
    args.push(command.subarray(end + 2, end + 2 + length))
    at = end + 2 + length + 2
  }
  return args
}
