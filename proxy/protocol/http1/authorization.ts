/** The credential of one request: the line that it carries, the wait for a token, and one other token after a 401. */
import type { HeaderCredential } from '../../policy/credential.ts'
import { refreshClock } from '../../runtime/clock.ts'

/** Stands where the token will be. */
const NO_LINE = Buffer.alloc(0)

export class Authorization {
  /** What the request carries; null: nothing, because no credential is wanted or none is there. Empty: the token is not known yet. */
  line: Buffer | null = null
  #isWaiting = false
  /** Another credential was tried after a 401. */
  #wasRefused = false
  /** Changes with each wait for a token, so that a late one is known as late. */
  #turn = 0
  /** Told when a wait has ended, whether there is a token now or not. */
  readonly #onSettled: (time: number) => void

  constructor(onSettled: (time: number) => void) {
    this.#onSettled = onSettled
  }

  /** A request begins. False: it cannot be sent, for its credential is not there and will not come. */
  begin(credential: HeaderCredential | null): boolean {
    this.#wasRefused = false
    this.line = credential === null ? null : (credential.line ?? (credential.renewed === undefined ? null : NO_LINE))
    return credential === null || this.line !== null
  }

  /** The token is not known yet. */
  get isMissing(): boolean {
    return this.line === NO_LINE
  }

  /** Waits until the fetch that is under way has ended. In the next turn: an answer that was refused may still be dealt with. */
  wait(credential: HeaderCredential): void {
    this.#isWaiting = true
    const turn = ++this.#turn
    setImmediate(() => {
      credential.renewed?.whenSettled(() => {
        if (!this.#isWaiting || this.#turn !== turn) return
        this.#isWaiting = false
        this.#onSettled(refreshClock())
      })
    })
  }

  /** Nobody waits any more. */
  cancel(): void {
    this.#isWaiting = false
  }

  /** The upstream answered 401 to the line. True: another one is being fetched or there already, and the request may be sent again. */
  mayRenew(credential: HeaderCredential | null): boolean {
    const sent = this.line
    if (credential === null || credential.renewed === undefined || sent === null || this.#wasRefused) return false
    if (!credential.renewed.refused(sent) && credential.line === sent) return false
    this.#wasRefused = true
    this.line = NO_LINE
    return true
  }
}
