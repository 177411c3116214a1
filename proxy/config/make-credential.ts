/** From the auth of a config to the credential that does it. */
import type { AuthConfig } from '../../common/proxy-config.ts'
import { GcpIdTokenSource } from '../auth/gcp-id-token.ts'
import { TokenCredential } from '../auth/token-credential.ts'
import { AwsCredential } from './aws-credential.ts'
import { Credential } from './credentials.ts'
import { FetchedCredential } from './fetched-credential.ts'
import type { CredentialParts, OwnedCredential } from './owned-credential.ts'
import { OAuth2Credential } from './token-credentials.ts'

export function makeCredential(
  auth: Exclude<AuthConfig, { kind: 'postgres' }>,
  parts: CredentialParts,
): OwnedCredential {
  switch (auth.kind) {
    case 'oauth2ClientCredentials':
      return new OAuth2Credential(auth, parts)
    case 'awsSigV4':
      return new AwsCredential(auth, parts.onFailure)
    case 'gcpIdToken':
      return new FetchedCredential(
        new TokenCredential({ source: new GcpIdTokenSource(auth.audience), onFailure: parts.onFailure }),
      )
    default:
      return new Credential(auth, parts.dirs)
  }
}
