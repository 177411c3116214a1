/** One Sentinel: a connection to ask it on, another to hear its events, both made again whenever they end. */
import type { Millis, Random } from '../../policy/policy.ts'
import { now } from '../../runtime/clock.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { Dial } from '../connector.ts'
import type { Address } from '../discovery/discovery.ts'
import { addressName } from '../endpoint.ts'
import { logIn } from './login.ts'
import { encodeCommand, type Reply } from './resp.ts'
import type { SentinelAccess } from './sentinel-access.ts'
import {
  eventOf,
  masterOf,
  namesOf,
  refusalOf,
  replicasOf,
  type SentinelEvent,
  type SentinelView,
  sentinelsOf,
} from './sentinel-view.ts'
import { Talk } from './talk.ts'

export interface PeerOptions {
  readonly address: Address
  readonly masterName: string
  readonly wantsReplicas: boolean
  readonly access: SentinelAccess
  readonly random: Random
  /** It has answered, or does not any more. */
  readonly onView: (peer: SentinelPeer) => void
  readonly onEvent: (event: SentinelEvent) => void
}

/** What is heard of a master: what announces a failover, what ends one, and what changes who is there. */
const CHANNELS = [
  '+switch-master',
  '+failover-state-send-slaveof-noone',
  '+promoted-slave',
  '+failover-end',
  '-failover-abort-not-elected',
  '-failover-abort-no-good-slave',
  '-failover-abort-slave-timeout',
  '+config-update-from',
  '+sdown',
  '-sdown',
  '+odown',
  '-odown',
  '+reboot',
  '+role-change',
  '-role-change',
  '+slave',
  '+slave-reconf-done',
  '+sentinel',
  '+sentinel-address-switch',
  '+monitor',
  '-monitor',
]

/** For a connection with its login, and for an answer. */
const TIMEOUT_MS = 2_000
const RETRY_MS = 200
const MAX_RETRY_MS = 5_000

const PING = encodeCommand(['PING'])
const MY_ID = encodeCommand(['SENTINEL', 'MYID'])
const MASTERS = encodeCommand(['SENTINEL', 'MASTERS'])

export class SentinelPeer {
  readonly name: string
  /** Of the Sentinel itself, the same wherever it is; null while it was not told. */
  id: string | null = null
  /** What it said last; null while it does not answer. */
  view: SentinelView | null = null
  /** Why it does not answer, or what is wrong with what it says; null: nothing. */
  failure: string | null = null
  readonly #options: PeerOptions
  readonly #ask: Line
  readonly #events: Line
  #isAsking = false
  #isAskedAgain = false

  constructor(options: PeerOptions) {
    this.#options = options
    this.name = addressName(options.address.ip, options.address.port)
    this.#ask = new Line(options, {
      onUp: () => this.#onUp(),
      onDown: (why) => this.#onDown(why),
    })
    this.#events = new Line(options, {
      onUp: (talk) => this.#subscribe(talk),
      onDown: () => {},
      onMessage: (message) => {
        const event = eventOf(message, options.masterName)
        if (event !== null) options.onEvent(event)
      },
    })
  }

  get address(): Address {
    return this.#options.address
  }

  start(): void {
    this.#ask.open()
    this.#events.open()
  }

  stop(): void {
    this.#ask.close()
    this.#events.close()
  }

  /** Asks everything anew; what is asked while an answer is awaited is asked once more behind it. */
  look(): void {
    const { talk } = this.#ask
    if (talk === null) return
    if (this.#isAsking) {
      this.#isAskedAgain = true
      return
    }
    this.#isAsking = true
    this.#isAskedAgain = false
    const { masterName, wantsReplicas } = this.#options
    let master: SentinelView['master'] | undefined
    let sentinels: SentinelView['sentinels'] = []
    let refusal: string | null = null
    talk.within(TIMEOUT_MS)
    talk.ask(['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', masterName], (reply) => {
      master = masterOf(reply)
      refusal = refusalOf(reply)
    })
    talk.ask(['SENTINEL', 'SENTINELS', masterName], (reply) => {
      sentinels = sentinelsOf(reply)
      if (!wantsReplicas) this.#onAnswer(talk, master, { sentinels, replicas: [] }, refusal)
    })
    if (!wantsReplicas) return
    // Before 5.0 the command is SLAVES, which newer ones know too.
    talk.ask(['SENTINEL', 'SLAVES', masterName], (reply) =>
      this.#onAnswer(talk, master, { sentinels, replicas: replicasOf(reply) }, refusal),
    )
  }

  /** Makes sure that its events still come. */
  check(): void {
    const { talk } = this.#events
    if (talk === null) return
    talk.within(TIMEOUT_MS)
    talk.ask(PING, () => talk.unlimited())
  }

  #onUp(): void {
    const { talk } = this.#ask
    this.#isAsking = false
    // Unknown before 6.2: then it is its address.
    talk?.ask(MY_ID, (reply) => {
      if (typeof reply === 'string' && /^[0-9a-f]{40}$/.test(reply)) this.id = reply
    })
    this.look()
  }

  #onDown(why: string): void {
    this.#isAsking = false
    this.view = null
    this.failure = why
    this.#options.onView(this)
  }

  #onAnswer(
    talk: Talk,
    master: SentinelView['master'] | undefined,
    rest: Omit<SentinelView, 'master'>,
    refusal: string | null,
  ): void {
    if (master === null) {
      talk.ask(MASTERS, (reply) => {
        const names = namesOf(reply).map((name) => `'${name}'`)
        const known = names.length === 0 ? 'no master' : names.join(', ')
        this.#take(talk, { ...rest, master }, `monitors ${known}: correct sentinel.masterName`)
      })
    } else if (master === undefined) this.#take(talk, null, refusal ?? 'answered with what no Sentinel says')
    else this.#take(talk, { ...rest, master }, null)
  }

  #take(talk: Talk, view: SentinelView | null, failure: string | null): void {
    talk.unlimited()
    this.#isAsking = false
    this.view = view
    this.failure = failure === null ? null : `Sentinel ${this.name} ${failure}`
    if (this.#isAskedAgain) this.look()
    this.#options.onView(this)
  }

  #subscribe(talk: Talk): void {
    talk.within(TIMEOUT_MS)
    // One each: every confirmation is a reply of its own.
    for (const channel of CHANNELS) {
      talk.ask(['SUBSCRIBE', channel], () => {
        if (channel !== CHANNELS.at(-1)) return
        talk.unlimited()
        // What happened before the subscription.
        this.look()
      })
    }
  }
}

interface LineOwner {
  readonly onUp: (talk: Talk) => void
  readonly onDown: (why: string) => void
  readonly onMessage?: (message: Reply) => void
}

/** A connection that is logged in and comes back when it ends. */
class Line {
  talk: Talk | null = null
  readonly #options: PeerOptions
  readonly #owner: LineOwner
  readonly #timer = new CoarseTimer(() => this.open())
  #dial: Dial | null = null
  #waitMs: Millis = RETRY_MS
  #upAt = 0

  constructor(options: PeerOptions, owner: LineOwner) {
    this.#options = options
    this.#owner = owner
  }

  open(): void {
    const { address, access } = this.#options
    const { tls, credential, guard } = access
    if (credential !== null && credential.line === null) {
      this.#retry(`Sentinel ${addressName(address.ip, address.port)} is not asked: ${credential.failure}`)
      return
    }
    this.#dial = logIn(
      { address, tls, alpn: null, timeoutMs: TIMEOUT_MS, guard, proxyProtocol: null },
      { credential, role: null },
      {
        onLoggedIn: (raw) => {
          this.#dial = null
          this.#upAt = now()
          const { onMessage } = this.#owner
          const name = addressName(address.ip, address.port)
          this.talk = new Talk(raw, {
            onEnd: (why) => {
              this.talk = null
              // One that lived for a while is worth being tried at once.
              if (now() - this.#upAt > MAX_RETRY_MS) this.#waitMs = RETRY_MS
              this.#retry(`Sentinel ${name} ${why}`)
            },
            ...(onMessage !== undefined && { onMessage }),
          })
          this.#owner.onUp(this.talk)
        },
        onLoginFailed: ({ detail }) => {
          this.#dial = null
          this.#retry(`Sentinel: ${detail}`)
        },
      },
    )
  }

  close(): void {
    this.#timer.release()
    this.#dial?.cancel()
    this.talk?.close()
    this.talk = null
  }

  #retry(why: string): void {
    this.#timer.set(now() + this.#waitMs * (1 - 0.2 * this.#options.random()))
    this.#waitMs = Math.min(this.#waitMs * 2, MAX_RETRY_MS)
    this.#owner.onDown(why)
  }
}
