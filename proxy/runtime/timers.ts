/** Coarse timers: one timer of Node's for all deadlines of the process, and a deadline that moves costs an assignment. */
import { refreshClock } from './clock.ts'

/** Accuracy: a deadline fires at its time or up to this much later (plus the delay of the event loop, twice this when that was long). */
export const TICK_MS = 8

/** Later than this, the process stood still: the machine was busy, or the container had used up its share of the processor. */
const STALL_MS = 100

/** How long deadlines that came up meanwhile are put off then. */
const GRACE_MS = 2 * TICK_MS

/** 1,024 slots of 8 ms are 8.2 seconds; what is further away goes round again. */
const SLOTS = 1024

const slots: (CoarseTimer | null)[] = new Array(SLOTS).fill(null)
let linked = 0
/** The last tick that was worked off. */
let swept = 0
let armedTick = Number.POSITIVE_INFINITY
let armed: NodeJS.Timeout | null = null

/** Has one timer that is its own. Where there are many of them a function for each would be memory for nothing. */
export interface TimerOwner {
  /** The time of its timer has come. */
  onTimer(): void
}

/**
 * A deadline that is set and cleared for each request. Setting it later or clearing it writes one number: the timer stays where it
 * is in the wheel, and only when its slot comes up is it seen that it is not due and moved on. So a connection that sets a 5 s
 * deadline ten thousand times a second touches the wheel every 5 s.
 */
export class CoarseTimer {
  /** When it fires, in milliseconds of the monotonic clock; Infinity while it is not set. */
  at = Number.POSITIVE_INFINITY
  #tick = -1
  #next: CoarseTimer | null = null
  #previous: CoarseTimer | null = null
  readonly #fire: (() => void) | TimerOwner

  /** @param fire called, or told, when its time has come */
  constructor(fire: (() => void) | TimerOwner) {
    this.#fire = fire
  }

  /** Fires at `at` (monotonic milliseconds); replaces an earlier deadline. */
  set(at: number): void {
    this.at = at
    if (this.#tick >= 0 && at >= this.#tick * TICK_MS) return
    this.#unlink()
    this.#link()
  }

  /** Does not fire any more. */
  clear(): void {
    this.at = Number.POSITIVE_INFINITY
  }

  /** Leaves the wheel, for an owner that goes away; clear() alone would keep it reachable until its slot comes up. */
  release(): void {
    this.at = Number.POSITIVE_INFINITY
    this.#unlink()
  }

  #link(): void {
    if (linked === 0) swept = Math.floor(performance.now() / TICK_MS) - 1
    const tick = Math.max(Math.ceil(this.at / TICK_MS), swept + 1)
    const slot = tick % SLOTS
    const head = slots[slot] ?? null
    this.#tick = tick
    this.#next = head
    this.#previous = null
    if (head !== null) head.#previous = this
    slots[slot] = this
    linked++
    if (tick < armedTick) arm(tick)
  }

  #unlink(): void {
    if (this.#tick < 0) return
    if (this.#previous !== null) this.#previous.#next = this.#next
    else slots[this.#tick % SLOTS] = this.#next
    if (this.#next !== null) this.#next.#previous = this.#previous
    this.#next = null
    this.#previous = null
    this.#tick = -1
    linked--
  }

  /** Fires what is due in one slot and moves the rest to where it belongs now. */
  static sweep(slot: number, tick: number, time: number): void {
    let timer = slots[slot] ?? null
    while (timer !== null) {
      const next: CoarseTimer | null = timer.#next
      if (timer.#tick <= tick) {
        timer.#unlink()
        if (timer.at <= time) {
          timer.at = Number.POSITIVE_INFINITY
          const fire = timer.#fire
          if (typeof fire === 'function') fire()
          else fire.onTimer()
          // What fires may release its neighbours: begin the slot again rather than follow a link that is gone.
          timer = slots[slot] ?? null
          continue
        }
        if (timer.at !== Number.POSITIVE_INFINITY) timer.#link()
      }
      timer = next
    }
  }

  /** The earliest tick with a timer in it; scans one round of slots, so it is asked once per firing and not per request. */
  static nextTick(): number {
    let earliest = Number.POSITIVE_INFINITY
    for (let i = 1; i <= SLOTS; i++) {
      const tick = swept + i
      let timer = slots[tick % SLOTS] ?? null
      while (timer !== null) {
        if (timer.#tick === tick) return tick
        if (timer.#tick < earliest) earliest = timer.#tick
        timer = timer.#next
      }
    }
    return earliest
  }
}

function arm(tick: number): void {
  armedTick = tick
  if (armed !== null) clearTimeout(armed)
  armed = setTimeout(onTick, Math.max(1, tick * TICK_MS - performance.now()))
  // Only sockets and servers keep the process alive; a deadline without one has nobody to tell.
  armed.unref()
}

/**
 * Node calls timers before it reads: after a stall every deadline would be over, though what it waits for has long come and only
 * this process did not look. So it looks first.
 */
function onTick(): void {
  if (performance.now() - armedTick * TICK_MS <= STALL_MS) {
    sweepDue()
    return
  }
  armed = setTimeout(sweepDue, GRACE_MS)
  armed.unref()
}

function sweepDue(): void {
  armed = null
  armedTick = Number.POSITIVE_INFINITY
  const time = refreshClock()
  const due = Math.floor(time / TICK_MS)
  // After a long stall one round visits every slot; more rounds would find nothing new.
  const from = Math.max(swept + 1, due - SLOTS + 1)
  for (let tick = from; tick <= due; tick++) {
    swept = tick
    CoarseTimer.sweep(tick % SLOTS, due, time)
  }
  if (linked > 0) {
    const next = CoarseTimer.nextTick()
    if (next < armedTick) arm(next)
  }
}

/** Timers in the wheel now, for tests of leaks. */
export function linkedTimers(): number {
  return linked
}
