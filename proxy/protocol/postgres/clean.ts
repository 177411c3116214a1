/** Leaves a connection to the server as the next client must find it, when one is gone. */
import { KEEPING_LANGUAGES } from './catalogue.ts'
import { Transaction } from './messages.ts'
import { CLOSING } from './pins.ts'
import { Rows } from './rows.ts'
import type { Server } from './server.ts'
import type { PinReason } from './session-host.ts'

/** What DISCARD ALL does not undo, be it of a statement or of the connection. */
export const CLOSES: ReadonlySet<string> = new Set([...CLOSING, 'replication', 'copy'])

/** Of an answer of one name. */
const MAX_NAME_BYTES = 1024

/**
 * Rolls back, and undoes what a client that kept the connection may have left. One that cannot be cleaned is not used again.
 * @param pin why it was kept, `mode` by each client; none of CLOSES. Null: it was not
 * @param over the connection can be given back; called later
 */
export function clean(server: Server, pin: PinReason | 'mode' | null, over: () => void): void {
  let isBad = false
  const done = (failure: Buffer | null): void => {
    isBad ||= failure !== null
  }
  const last = (failure: Buffer | null): void => {
    done(failure)
    if (isBad) server.isDoomed = true
    else if (pin !== null) {
      server.isDoubtful = false
      server.isUnsettled = false
    }
    over()
  }
  if (server.status !== Transaction.idle) server.run('rollback', pin === null ? last : done)
  if (pin === 'mode') {
    // Nobody has read what its statements call.
    const languages = new Rows(MAX_NAME_BYTES)
    const asked = (): void => {
      if (languages.list.length > 0) server.isDoomed = true
      last(null)
    }
    server.run('discard all', done)
    server.run(KEEPING_LANGUAGES, asked, languages)
  } else if (pin !== null) server.run('discard all', last)
}
