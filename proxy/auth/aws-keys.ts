/** Keys of AWS for the role of the pod: of the environment, of a web identity, of the agent of the cluster or of the node. */
import { trustNodeRoots } from '../runtime/roots.ts'
import type { AwsKeys } from './sigv4.ts'
import type { Token, TokenSource } from './token-credential.ts'

type Provider = (options: { readonly forceRefresh: boolean }) => Promise<AwsKeys & { readonly expiration?: Date }>

/** Fetches keys as if they were a token: its value is the id of the key, and `keys` is what signs. */
export class AwsKeySource implements TokenSource {
  readonly #region: string
  #keys: AwsKeys | null = null
  #provider: Provider | null = null

  /** @param region whose endpoint is asked for the keys of a role */
  constructor(region: string) {
    this.#region = region
  }

  /** The newest keys; null before the first fetch has ended well. */
  get keys(): AwsKeys | null {
    return this.#keys
  }

  async fetch(signal: AbortSignal): Promise<Token> {
    const aborted = Promise.withResolvers<never>()
    const onAbort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      // The vendor's calls cannot be given up; one that ends too late is not waited for.
      const { expiration, ...keys } = await Promise.race([this.#fetch(), aborted.promise])
      this.#keys = keys
      return { value: keys.accessKeyId, lifeMs: expiration === undefined ? null : expiration.getTime() - Date.now() }
    } catch (error) {
      if (signal.aborted) throw new Error(`awsSigV4: ${(signal.reason as Error).message}, ${REMEDY}`)
      throw new Error(keysFailure('awsSigV4', error))
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async #fetch(): ReturnType<Provider> {
    // Loaded here alone: a sidecar that signs nothing has none of this in memory.
    trustNodeRoots()
    const { fromNodeProviderChain } = await import('@aws-sdk/credential-providers')
    this.#provider ??= fromNodeProviderChain({ clientConfig: { region: this.#region } }) as Provider
    return this.#provider({ forceRefresh: true })
  }
}

const REMEDY = 'bind a role to the service account of the pod (IRSA or Pod Identity) or set AWS_ACCESS_KEY_ID'

/**
 * Why there are no keys, for the field that needs them. The name of the error alone: the vendor's messages may repeat what was
 * sent, answered or found in a file.
 */
export function keysFailure(field: string, error: unknown): string {
  const { name } = error as { readonly name?: unknown }
  const isName = typeof name === 'string' && /^\w{1,60}$/.test(name)
  return `${field}: no keys were had${isName ? ` (${name})` : ''}, ${REMEDY}`
}
