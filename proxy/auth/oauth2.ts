/** Tokens by the OAuth 2.0 client credentials grant (RFC 6749 section 4.4). */

import type { SecureContext } from 'node:tls'
import type { DialGuard } from '../policy/dial-guard.ts'
import { trustNodeRoots } from '../runtime/roots.ts'
import { guardedLookup } from './guarded-lookup.ts'
import type { Token, TokenSource } from './token-credential.ts'

/** A token answer larger than this is not one. */
const MAX_ANSWER_BYTES = 64 * 1024

export interface OAuth2Options {
  /** What must not be dialled; asked anew for each fetch. */
  readonly guard: () => DialGuard
  readonly tokenUrl: URL
  readonly clientId: string
  /** Read anew for each fetch, because Secrets rotate. Throws with the field, the Secret and the remedy. */
  readonly clientSecret: () => string
  readonly scopes: readonly string[]
  readonly audience: string | null
  /** Of the token URL; null: the system roots. Read anew for each fetch. */
  readonly context: () => SecureContext | null
}

export class OAuth2Source implements TokenSource {
  readonly #options: OAuth2Options

  constructor(options: OAuth2Options) {
    this.#options = options
  }

  async fetch(signal: AbortSignal): Promise<Token> {
    const { tokenUrl, clientId, clientSecret, scopes, audience } = this.#options
    const form = new URLSearchParams({ grant_type: 'client_credentials' })
    if (scopes.length > 0) form.set('scope', scopes.join(' '))
    if (audience !== null) form.set('audience', audience)
    // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
    const encode = (text: string) => new URLSearchParams([['', text]]).toString().slice(1)
    const basic = Buffer.from(`${encode(clientId)}:${encode(clientSecret())}`).toString('base64')
    const { status, body } = await this.#post(form.toString(), basic, signal)
    const where = `token URL '${tokenUrl.origin}${tokenUrl.pathname}'`
    let answer: { access_token?: unknown; expires_in?: unknown; token_type?: unknown; error?: unknown }
    try {
      answer = JSON.parse(body)
    } catch {
      throw new Error(`${where}: answered ${status} without JSON, check the address`)
    }
    if (status !== 200) {
      // Only the registered error code is told (RFC 6749 section 5.2); a description could repeat what was sent.
      const code =
        typeof answer.error === 'string' && /^[\w.-]{1,64}$/.test(answer.error) ? answer.error : 'no error code'
      throw new Error(`${where}: answered ${status} (${code}), check clientId, clientSecret, scopes and audience`)
    }
    if (typeof answer?.access_token !== 'string' || answer.access_token === '') {
      throw new Error(`${where}: answered 200 without an access_token, check the address`)
    }
    if (answer.token_type !== undefined && String(answer.token_type).toLowerCase() !== 'bearer') {
      throw new Error(
        `${where}: token type '${String(answer.token_type).slice(0, 32)}' is not supported, only Bearer is`,
      )
    }
    const seconds = Number(answer.expires_in)
    return {
      value: answer.access_token,
      lifeMs: answer.expires_in === undefined || !Number.isFinite(seconds) ? null : seconds * 1000,
    }
  }

  #post(form: string, basic: string, signal: AbortSignal): Promise<{ status: number; body: string }> {
    const { tokenUrl, context, guard } = this.#options
    const isTls = tokenUrl.protocol === 'https:'
    const secureContext = isTls ? context() : null
    if (isTls && secureContext === null) trustNodeRoots()
    const where = `token URL '${tokenUrl.origin}${tokenUrl.pathname}'`
    return new Promise((resolve, reject) => {
      const fail = (error: NodeJS.ErrnoException) => {
        const isGivenUp = error.name === 'AbortError'
        const why = isGivenUp ? ((signal.reason as Error)?.message ?? 'given up') : (error.code ?? error.message)
        reject(new Error(`${where}: ${why}`))
      }
      const options = {
        lookup: guardedLookup(guard(), tokenUrl.hostname, Number(tokenUrl.port || (isTls ? 443 : 80))),
        method: 'POST',
        signal,
        agent: false as const,
        headers: {
          authorization: `Basic ${basic}`,
          accept: 'application/json',
          'content-type': 'application/x-www-form-urlencoded',
          'content-length': Buffer.byteLength(form),
        },
        ...(isTls ? { secureContext: secureContext ?? undefined, rejectUnauthorized: true } : {}),
      }
      const { request: send } = process.getBuiltinModule(isTls ? 'node:https' : 'node:http')
      const request = send(tokenUrl, options, (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size > MAX_ANSWER_BYTES)
            response.destroy(new Error(`answered more than ${MAX_ANSWER_BYTES} bytes, check the address`))
          else chunks.push(chunk)
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }))
        response.on('error', fail)
      })
      request.on('error', fail)
      request.end(form)
    })
  }
}
