/** Name look-ups for clients of Node's own: addresses that must not be dialled are left out. */
import { isIP, type LookupFunction } from 'node:net'
import type { DialGuard } from '../policy/dial-guard.ts'

/**
 * The `lookup` of a request to `port`.
 * @throws {Error} now, for a host that is an address and must not be dialled: nobody would look it up
 */
export function guardedLookup(guard: DialGuard, host: string, port: number): LookupFunction {
  const bare = host.replace(/^\[(.*)\]$/, '$1')
  const refusal = isIP(bare) === 0 ? null : guard.refusal(bare, bare, port)
  if (refusal !== null) throw new Error(refusal.detail)
  return (name, options, done) => {
    process.getBuiltinModule('node:dns').lookup(name, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        done(error, '', 0)
        return
      }
      const allowed = addresses.filter(({ address }) => guard.refusal(name, address, port) === null)
      const [first] = allowed
      if (first === undefined) {
        const ip = addresses[0]?.address ?? ''
        done(new Error(guard.refusal(name, ip, port)?.detail ?? `name '${name}' has no address`), '', 0)
      } else if (options.all === true) done(null, allowed)
      else done(null, first.address, first.family)
    })
  }
}
