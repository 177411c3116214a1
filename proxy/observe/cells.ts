/** Plain numbers that the HTTP data path counts in; metrics are written from them when somebody scrapes. */
import { REASONS, type Reason } from '../../common/reasons.ts'

/** Upper bounds of the buckets of ambassador_request_duration_seconds, in milliseconds. */
export const DURATION_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000] as const

/** Statuses that have series of their own; a server that makes them up must not fill the memory of whoever scrapes. */
export const MAX_STATUSES = 64

/** An exchange whose span was sent, as an example of its bucket. */
export interface DurationExemplar {
  readonly traceId: string
  readonly durationMs: number
  /** Milliseconds since 1970. */
  readonly atMs: number
}

/** Exchanges that ended with one status: a histogram of how long they took. */
export class StatusCell {
  count = 0
  sumMs = 0
  /** Exchanges per bucket, each counted once; the last one is for those above every bound. */
  readonly buckets = new Float64Array(DURATION_BUCKETS_MS.length + 1)
  /** The newest example of each bucket; null: none was traced. */
  exemplars: (DurationExemplar | null)[] | null = null

  add(durationMs: number): void {
    this.count++
    this.sumMs += durationMs
    const bucket = bucketOf(durationMs)
    this.buckets[bucket] = this.buckets[bucket]! + 1
  }
}

function bucketOf(durationMs: number): number {
  let bucket = 0
  while (bucket < DURATION_BUCKETS_MS.length && durationMs > DURATION_BUCKETS_MS[bucket]!) bucket++
  return bucket
}

/** Copies of requests, by what became of them. */
export interface MirrorCounts {
  /** Under way. */
  active: number
  /** Answered, with whatever. */
  sent: number
  /** Not answered. */
  failed: number
  /** Not sent, because something was scarce or missing. */
  dropped: number
  /** Not sent, because not all of the body was kept. */
  tooLarge: number
}

/** A connection that took up another protocol and is still open. */
export interface OpenTunnel {
  /** From the application, and to it, so far. */
  readonly bytesIn: number
  readonly bytesOut: number
}

/** What is counted for one upstream of an Ambassador. */
export class HttpCells {
  /** By status that the application got; index 0 is a client that left without one. Null until the first, and beyond MAX_STATUSES. */
  readonly byStatus: (StatusCell | null)[] = new Array(1000).fill(null)
  /** Those with a status beyond MAX_STATUSES; null: none. */
  overflow: StatusCell | null = null
  /** How long requests waited for the rate limit, for DNS or for a connection: those that did. */
  readonly queueWait = new StatusCell()
  #statuses = 0
  /** Answers that the proxy made itself and exchanges that failed, by reason code. */
  readonly reasons: Record<Reason, number> = Object.fromEntries(
    Object.keys(REASONS).map((reason) => [reason, 0]),
  ) as Record<Reason, number>
  /** Attempts that were sent to an endpoint, the first ones and the repeated. */
  attempts = 0
  /** Requests sent again on a new connection because a reused one had died; not counted as retries. */
  replays = 0
  /** Content bytes of requests and of responses, and of tunnels that ended. */
  requestBytes = 0
  responseBytes = 0
  /** Connections that became tunnels (101), and those of them that are open. */
  upgrades = 0
  readonly tunnels = new Set<OpenTunnel>()
  /** Exchanges under way. */
  active = 0
  /** Second attempts of slow requests, and how many of them answered first. */
  readonly hedged = { sent: 0, won: 0 }
  /** Copies of requests that routes send to it. */
  readonly mirrored: MirrorCounts = { active: 0, sent: 0, failed: 0, dropped: 0, tooLarge: 0 }

  add(status: number, durationMs: number): void {
    let cell = this.byStatus[status]
    if (cell == null) {
      if (this.#statuses < MAX_STATUSES) {
        this.#statuses++
        cell = new StatusCell()
        this.byStatus[status] = cell
      } else {
        this.overflow ??= new StatusCell()
        cell = this.overflow
      }
    }
    cell.add(durationMs)
  }

  /** Tells of one that was added whose trace may be looked at. */
  exemplify(status: number, example: DurationExemplar): void {
    const cell = this.byStatus[status] ?? this.overflow
    if (cell === null) return
    cell.exemplars ??= new Array<DurationExemplar | null>(DURATION_BUCKETS_MS.length + 1).fill(null)
    cell.exemplars[bucketOf(example.durationMs)] = example
  }

  /** Content bytes of requests and of responses, those of open tunnels included. */
  get bytes(): { readonly request: number; readonly response: number } {
    let { requestBytes: request, responseBytes: response } = this
    for (const { bytesIn, bytesOut } of this.tunnels) {
      request += bytesIn
      response += bytesOut
    }
    return { request, response }
  }

  /** Every cell that counted something, with its status or `overflow`. */
  get statuses(): readonly (readonly [status: number | 'overflow', cell: StatusCell])[] {
    const found = this.byStatus.flatMap((cell, status) => (cell === null ? [] : [[status, cell] as const]))
    return this.overflow === null ? found : [...found, ['overflow', this.overflow]]
  }
}
