/** Requests signed with the keys of AWS that the pod's role gives. */
import type { AuthConfig } from '../../common/proxy-config.ts'
import { AwsKeySource } from '../auth/aws-keys.ts'
import { amzDate, authorization, EMPTY_HASH, isS3, sha256, UNSIGNED_PAYLOAD } from '../auth/sigv4.ts'
import { TokenCredential } from '../auth/token-credential.ts'
import type { RequestSigner, SignedParts } from '../policy/credential.ts'
import { FetchedCredential } from './fetched-credential.ts'

type AwsAuth = Extract<AuthConfig, { kind: 'awsSigV4' }>

/** AWS takes a signature that is up to five minutes off; half of that is no reason to move the clock. */
const SKEW_MS = 150_000

const EXPIRED = 'ExpiredToken'
const MAX_ERROR_BYTES = 4096

/** Fields that are signed beside X-Amz-...: the rest may be changed by a hop on the way, and need not be. */
const SIGNED = ['host', 'content-type', 'content-md5']

/** What S3 takes in place of a hash, beside a hash. */
const UNSIGNED = [UNSIGNED_PAYLOAD, 'STREAMING-UNSIGNED-PAYLOAD-TRAILER']

export class AwsCredential extends FetchedCredential implements RequestSigner {
  readonly replaces = ['x-amz-date', 'x-amz-security-token']
  readonly payloadField = 'x-amz-content-sha256'
  readonly errorField = 'x-amzn-errortype'
  readonly allowsUnsigned: boolean
  readonly #auth: AwsAuth
  readonly #source: AwsKeySource
  /** What the clock of the upstream is ahead of ours. */
  #aheadMs = 0

  constructor(auth: AwsAuth, onFailure: (message: string) => void) {
    const source = new AwsKeySource(auth.region)
    super(new TokenCredential({ source, onFailure, lineOf: (id) => Buffer.from(id) }))
    this.#auth = auth
    this.allowsUnsigned = isS3(auth.service)
    this.#source = source
  }

  get signer(): RequestSigner {
    return this
  }

  payloadProblem(value: string): string | null {
    if (/^[0-9a-f]{64}$/.test(value) || UNSIGNED.includes(value)) return null
    return `${this.payloadField} says that the application signs its body piece by piece, which cannot be signed anew: let it send the body unsigned`
  }

  sign({ method, target, fields, content }: SignedParts): Buffer {
    const { keys } = this.#source
    // Attempts begin when there are keys, and keys that came once stay.
    if (keys === null) throw new Error('awsSigV4: an attempt was begun without keys')
    const date = amzDate(Date.now() + this.#aheadMs)
    const added: (readonly [string, string])[] = [['X-Amz-Date', date]]
    if (keys.sessionToken !== undefined) added.push(['X-Amz-Security-Token', keys.sessionToken])
    const given = fields.find(([name]) => name.toLowerCase() === this.payloadField)?.[1].trim()
    const payloadHash = given ?? hashOf(content)
    if (given === undefined && this.allowsUnsigned) added.push(['X-Amz-Content-Sha256', payloadHash])
    const signed = fields.filter(([name]) => isSigned(name.toLowerCase()))
    const value = authorization({ method, target, fields: [...signed, ...added], payloadHash }, keys, this.#auth, date)
    const lines = [['Authorization', value] as const, ...added].map(([name, text]) => `${name}: ${text}\r\n`)
    return Buffer.from(lines.join(''), 'latin1')
  }

  saysExpired(error: string | null, content: Buffer): boolean {
    // Most services say it in the field and in JSON, S3 in its XML alone; a few add Exception to the word.
    return error?.includes(EXPIRED) === true || content.subarray(0, MAX_ERROR_BYTES).includes(EXPIRED)
  }

  learnTime(serverMs: number): boolean {
    const aheadMs = serverMs - Date.now()
    if (!(Math.abs(aheadMs - this.#aheadMs) > SKEW_MS)) return false
    this.#aheadMs = aheadMs
    return true
  }
}

function hashOf(content: Buffer | null): string {
  if (content === null) return UNSIGNED_PAYLOAD
  return content.length === 0 ? EMPTY_HASH : sha256(content)
}

function isSigned(name: string): boolean {
  return SIGNED.includes(name) || name.startsWith('x-amz-')
}
