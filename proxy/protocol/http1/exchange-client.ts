/** The client's side of an exchange: what it is written to, and who is told how it ended. */
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { UpstreamConnection } from '../../upstream/http-pool.ts'
import type { Exchange } from './exchange.ts'

/** How the client's connection goes on after an exchange. */
export type AfterExchange =
  /** It takes the next request. */
  | 'keep'
  /** Nothing more is sent; what the client still sends is read for a while so that it can read the answer. */
  | 'close'
  /** It is cut, so that the client sees an answer that is not complete. */
  | 'cut'
  /** It carries another protocol. */
  | 'tunnel'

export interface ExchangeClient {
  readonly raw: RawSocket
  /** The connection takes no request after this one, whatever the client wants. */
  readonly isDraining: boolean
  /** The exchange is over: what it was can be asked until onExchangeEnd, which follows at once. */
  record(exchange: Exchange): void
  /** Exactly once for each exchange, which may begin another one from here on. */
  onExchangeEnd(exchange: Exchange, after: AfterExchange): void
  /** The upstream took up another protocol: everything from here on belongs to it. `rest` is what it sent already. */
  onTunnel(exchange: Exchange, connection: UpstreamConnection, rest: Buffer): void
}
