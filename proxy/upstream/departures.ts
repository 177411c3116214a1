/** Endpoints that discovery does not name any more while something still goes on there: ended when nobody answers, or after a deadline. */
import type { Millis } from '../policy/policy.ts'
import { now } from '../runtime/clock.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import type { Endpoint } from './endpoint.ts'

interface Departure {
  readonly endpoint: Endpoint
  readonly leftAt: Millis
  readonly timer: CoarseTimer
}

export class Departures {
  readonly #leaving = new Map<string, Departure>()
  #deadlineMs: Millis | null

  /** @param deadlineMs how long what goes on at an endpoint may go on after it has left; null: for ever */
  constructor(deadlineMs: Millis | null) {
    this.#deadlineMs = deadlineMs
  }

  /** Also of endpoints that have left already. */
  setDeadline(ms: Millis | null): void {
    if (ms === this.#deadlineMs) return
    this.#deadlineMs = ms
    for (const departure of this.#leaving.values()) this.#arm(departure)
  }

  /** Discovery does not name it any more: nothing new begins there, and what is idle ends. */
  leave(key: string, endpoint: Endpoint): void {
    endpoint.retire()
    for (const [other, { endpoint: each }] of this.#leaving) if (!isInUse(each)) this.#forget(other)
    if (!isInUse(endpoint)) return
    if (endpoint.isSilent) {
      endpoint.cut('nobody answers at its endpoint, which discovery does not name any more')
      return
    }
    this.#forget(key)
    const departure: Departure = { endpoint, leftAt: now(), timer: new CoarseTimer(() => this.#onDeadline(key)) }
    this.#leaving.set(key, departure)
    this.#arm(departure)
  }

  /** Discovery names the address again: what still goes on there stays, and belongs to its new endpoint. */
  takeBack(key: string, endpoint: Endpoint): void {
    const departure = this.#leaving.get(key)
    if (departure === undefined) return
    const former = departure.endpoint
    endpoint.tenants = former.tenants
    // Those on which nothing is under way are left out, so that an address that comes and goes leaves no trail of them.
    for (let each = former; each.former !== null; ) {
      if (each.former.active > 0) each = each.former
      else each.former = each.former.former
    }
    endpoint.former = former.active > 0 ? former : former.former
    this.#forget(key)
  }

  #arm({ leftAt, timer }: Departure): void {
    if (this.#deadlineMs === null) timer.clear()
    else timer.set(leftAt + this.#deadlineMs)
  }

  #onDeadline(key: string): void {
    const departure = this.#leaving.get(key)
    this.#forget(key)
    departure?.endpoint.cut(`its endpoint left discovery ${this.#deadlineMs} ms ago, which is its drainDeadline`)
  }

  #forget(key: string): void {
    this.#leaving.get(key)?.timer.release()
    this.#leaving.delete(key)
  }
}

function isInUse(endpoint: Endpoint): boolean {
  for (let each: Endpoint | null = endpoint; each !== null; each = each.former) {
    if (each.active > 0 || each.tenants.size > 0) return true
  }
  return false
}
