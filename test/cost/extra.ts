/** Costs that nobody wants, to see that they are noticed: what a thoughtless change would add to each write of the proxy. */
import { RawSocket } from '../../proxy/runtime/raw-socket.ts'

const names = new Map<string, string>([['socket', 'raw']])
let last = ''

const { write } = RawSocket.prototype

const EXTRAS: Readonly<Record<string, () => void>> = {
  /** A look into a map, and a string. */
  work: () => {
    RawSocket.prototype.write = function (data) {
      last = `${names.get('socket')} ${this.bytesWritten} ${last.length}`
      return write.call(this, data)
    }
  },
  /** Two writes in place of one. */
  write: () => {
    RawSocket.prototype.write = function (data) {
      const half = data.length >> 1
      return write.call(this, data.subarray(0, half)) && write.call(this, data.subarray(half))
    }
  },
}

/** Adds one, and returns what takes it away. Throws when there is none of this name. */
export const addExtra = (name: string): (() => void) => {
  const add = EXTRAS[name]
  if (add === undefined) throw new Error(`extra '${name}': is not known, use ${Object.keys(EXTRAS).join(', ')}`)
  add()
  return () => {
    RawSocket.prototype.write = write
  }
}
