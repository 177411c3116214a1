/** Discovery of a Unix socket: its path is its address, and never another one. */
import type { Address, Discovery } from './discovery.ts'

export class UnixDiscovery implements Discovery {
  readonly failure = null
  readonly #address: Address

  constructor({ path }: { readonly path: string }) {
    // Whatever listens there is on this machine, and that is what Host and SNI say.
    this.#address = { host: 'localhost', ip: path, port: 0, weight: 1, priority: 0 }
  }

  start(onChange: (endpoints: readonly Address[]) => void): void {
    onChange([this.#address])
  }

  refresh(): void {}

  stop(): void {}
}
