/** A connection that took up another protocol: bytes both ways until both sides have ended, and then its line in the access log. */
import type { Reason } from '../../../common/reasons.ts'
import type { OpenTunnel } from '../../observe/cells.ts'
import { refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { breakText } from '../../tls/alerts.ts'
import { watchClosely } from '../../upstream/connector.ts'
import type { Endpoint, Tenant } from '../../upstream/endpoint.ts'
import type { UpstreamConnection } from '../../upstream/http-pool.ts'
import { Relay, type RelayEnd, type RelayOwner } from '../tcp/relay.ts'
import type { Exchange } from './exchange.ts'
import { type HttpRecord, recordOf } from './record.ts'

export interface TunnelOptions {
  readonly client: RawSocket
  readonly connection: UpstreamConnection
  /** The exchange that became a tunnel. It is another request's soon. */
  readonly exchange: Exchange
  /** What the client sent behind its request; null: nothing. */
  readonly early: Buffer | null
  /** What the upstream sent behind its 101. */
  readonly rest: Buffer
  /** Called once, when both connections are closed. */
  readonly onEnd: (record: HttpRecord) => void
}

export class Tunnel implements Tenant, OpenTunnel, RelayOwner {
  readonly #options: TunnelOptions
  readonly #endpoint: Endpoint
  readonly #upstream: RawSocket
  readonly #relay: Relay
  readonly #cells: Exchange['target']['upstream']['cells']
  readonly #timeouts: Exchange['target']['timeouts']
  readonly #startedAt: number
  /** Of the client's connection when the tunnel began. */
  readonly #readBefore: number
  readonly #writtenBefore: number
  /** Of the exchange; its end has to be told with the bytes and the time of the tunnel. */
  #record: HttpRecord | null = null
  /** Why its endpoint must not be used any more; null while it may. */
  #evicted: string | null = null

  /** Begins; it is the owner of both connections from here on. */
  constructor(options: TunnelOptions) {
    const { client, connection, exchange, early, rest } = options
    this.#options = options
    this.#endpoint = connection.pool.endpoint
    this.#upstream = connection.detach()
    this.#cells = exchange.target.upstream.cells
    this.#timeouts = exchange.target.timeouts
    this.#startedAt = exchange.startedAt
    this.#readBefore = client.bytesRead - (early?.length ?? 0)
    this.#writtenBefore = client.bytesWritten
    this.#endpoint.tenants.add(this)
    this.#cells.tunnels.add(this)
    if (rest.length > 0) client.write(rest)
    this.#relay = new Relay(this, client, this.#upstream)
    this.#relay.start(early, client.ended)
    if (this.#upstream.isPaused && client.backlog === 0) this.#upstream.resume()
  }

  /** Takes down what is known of the exchange, which ends here. */
  take(exchange: Exchange): void {
    this.#record = recordOf(exchange)
  }

  get bytesIn(): number {
    return this.#options.client.bytesRead - this.#readBefore
  }

  get bytesOut(): number {
    return this.#options.client.bytesWritten - this.#writtenBefore
  }

  get idleMs(): number | null {
    return this.#timeouts.idleMs
  }

  /** What the two speak is theirs. */
  farewell(): null {
    return null
  }

  onUpstreamClosed(): void {
    this.#endpoint.tenants.delete(this)
    this.#options.connection.pool.released()
  }

  onEndpointLeft(): void {
    watchClosely(this.#upstream)
  }

  evict(why: string): void {
    this.#evicted = why
    this.destroy()
  }

  /** Ends both connections at once, as a failure that both peers see. Idempotent. */
  destroy(): void {
    this.#relay.destroy()
  }

  onRelayEnd(end: RelayEnd): void {
    const { bytesIn, bytesOut } = this
    const cells = this.#cells
    cells.tunnels.delete(this)
    cells.requestBytes += bytesIn
    cells.responseBytes += bytesOut
    const reason = this.#reasonOf(end)
    const detail = this.#detailOf(end)
    if (reason !== null) cells.reasons[reason]++
    if (reason === 'upstream_reset') this.#endpoint.failed(reason, detail ?? '')
    const record = this.#record as HttpRecord
    this.#options.onEnd({
      ...record,
      reason,
      detail,
      requestBytes: record.requestBytes + bytesIn,
      responseBytes: bytesOut,
      totalMs: refreshClock() - this.#startedAt,
    })
  }

  #reasonOf(end: RelayEnd): Reason | null {
    if (end.kind === 'broken') return end.by === 'client' ? 'client_gone' : 'upstream_reset'
    if (end.kind === 'destroyed') return this.#evicted === null ? 'draining' : 'upstream_reset'
    return null
  }

  #detailOf(end: RelayEnd): string | null {
    switch (end.kind) {
      case 'closed':
        return null
      case 'idle':
        return `no byte moved for ${this.#timeouts.idleMs} ms`
      case 'destroyed':
        return this.#evicted ?? 'the sidecar is shutting down'
      case 'broken': {
        const why = breakText(end.error)
        const who = end.by === 'client' ? 'the application' : `endpoint ${this.#endpoint.name}`
        return `${who} broke the connection${why === null ? '' : `: ${why}`}`
      }
    }
  }
}
