/** The contract of discovery: something that keeps saying where a cluster's endpoints are. */

/** One address that can be dialled. Two addresses are the same endpoint when host, ip and port are equal. */
export interface Address {
  /** As configured (a name or an IP): the Host of requests and the name that TLS verifies unless the config names another. */
  readonly host: string
  /** Or the path of a Unix socket, which has the port 0. */
  readonly ip: string
  readonly port: number
  readonly weight: number
  /** 0 is used first; higher ones when every lower one is down. */
  readonly priority: number
  /** Of its node; absent: not known. */
  readonly zone?: string | undefined
  /** Zones that it is meant for in place of its own; absent: its own. */
  readonly forZones?: readonly string[] | undefined
}

/** What must wait because nobody knows whether an endpoint is still the one: nothing, what is new, or also what is under way. */
export type Halt = 'none' | 'new' | 'all'

export interface Discovery {
  /**
   * Begins; `onChange` gets every new set, never an empty one once there was another (an empty DNS answer keeps the last good). Only
   * a Service says that it has none, by an empty set: its addresses may belong to other pods by then.
   * `onFailure` is told when `failure` has become another text or null, `onHalt` when something has to wait, and when no more.
   */
  start(
    onChange: (endpoints: readonly Address[]) => void,
    onFailure?: (failure: string | null) => void,
    onHalt?: (halt: Halt) => void,
  ): void
  /**
   * Looks again soon, after a failed connect. Rate-limited inside; safe to call for each failure.
   * @param host of the endpoint that it is for: no other name needs to be asked for. Default: all are
   */
  refresh(host?: string): void
  /** Why the newest look-up failed, in words for a person; null when it succeeded. */
  readonly failure: string | null
  /** When the oldest of its look-ups in DNS that are in use last succeeded, in monotonic milliseconds; null: it has none. */
  readonly lookedUpAt?: number | null
  /** Whoever watches the server at this place says that it does not answer. Only of discovery by Sentinel. */
  isDown?(host: string, port: number): boolean
  stop(): void
}
