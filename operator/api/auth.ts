/** How the sidecar proves to an upstream who it is, so that the application need not. */
import { z } from 'zod'
import {
  choice,
  doc,
  exactlyOne,
  integer,
  listSet,
  objectName,
  optional,
  rule,
  secretKeyRef,
} from '../../common/schema-kit.ts'
import { writtenFieldName } from './fields.ts'
import { redisAuth } from './sentinel.ts'
import { tlsFields } from './tls.ts'
import { URL_PATTERN, URL_REMEDY } from './url.ts'

const headerName = writtenFieldName('a credential cannot be in it')

const tokenUrl = rule(z.string().max(1024), {
  cel: `self.matches('${URL_PATTERN}')`,
  holds: (text) => new RegExp(URL_PATTERN).test(text) && URL.canParse(text),
  message: `not a URL of HTTP: ${URL_REMEDY}`,
})

/** Words of a scope (RFC 6749 section 3.3). */
const SCOPE_PATTERN = '^[!#-[\\]-~]+$'

const scope = rule(z.string().max(256), {
  cel: `self.matches('${SCOPE_PATTERN.replaceAll('\\', '\\\\')}')`,
  holds: (text) => new RegExp(SCOPE_PATTERN).test(text),
  message: 'not a scope: use one word for each item of the list',
})

const oauth2 = rule(
  z.object({
    tokenUrl: doc(tokenUrl, 'URL of the token endpoint, such as https://login.example.com/oauth2/token.'),
    clientId: doc(z.string().min(1).max(256), 'Client identifier.'),
    clientSecret: doc(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the client secret.') }),
      'Client secret, read again for each token.',
    ),
    scopes: optional(listSet(scope, 32), 'Scopes that are asked for.', 'those that the issuer gives'),
    audience: optional(z.string().min(1).max(1024), 'Audience that is asked for, for issuers that know it.', 'none'),
    tls: optional(
      tlsFields.omit({ serverName: true, insecureSkipVerify: true, negotiation: true }),
      'How the token URL is trusted; needs https.',
      'verified by the system roots',
    ),
  }),
  {
    cel: "!has(self.tls) || self.tokenUrl.startsWith('https://')",
    holds: (value) => value.tls === undefined || value.tokenUrl.startsWith('https://'),
    field: ['tls'],
    message: 'tls needs a tokenUrl of https: change the URL or remove tls',
  },
)

const username = rule(z.string().min(1).max(63), {
  cel: `!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')`,
  holds: (text) => !/[\x00-\x1f\x7f]/.test(text),
  message: 'has a control character: write the name of the user',
})

const AUDIENCE_PATTERN = '^[!-~]+$'

const audience = rule(z.string().max(512), {
  cel: `self.matches('${AUDIENCE_PATTERN}')`,
  holds: (text) => new RegExp(AUDIENCE_PATTERN).test(text),
  message: 'not an audience: use a name or URL without spaces, such as https://vault.example.com',
})

const serviceAccountToken = z.object({
  audience: doc(
    audience,
    'Whom the token is for: the name that the upstream expects in it. Nobody else accepts it, the API server included.',
  ),
  expirationSeconds: doc(
    integer(600, 604_800),
    'Life of a token in seconds. The kubelet writes a new one when 80 % of it is over, or a day; the API server may allow less.',
  ).default(3600),
})

const AWS_NAME_PATTERN = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'

function awsName(example: string) {
  const remedy = `use lower-case letters, digits and dashes, such as ${example}`
  return rule(z.string().max(63), {
    cel: `self.matches('${AWS_NAME_PATTERN}')`,
    holds: (text) => new RegExp(AWS_NAME_PATTERN).test(text),
    message: `not a name of AWS: ${remedy}`,
    says: {
      cel: `"'" + self + "' is not a name of AWS: ${remedy}"`,
      text: (text) => `'${text}' is not a name of AWS: ${remedy}`,
    },
  })
}

const TOKEN_LIFE =
  'Fetched when a connection needs one, used for later ones until a fifth of its life is left, and sent inside TLS alone.'

/** Tokens that the sidecar fetches to log in at a database. */
export const DATABASE_TOKENS = ['awsRdsIam', 'gcpCloudSqlIam', 'azureEntra'] as const

/** What the sidecar proves by that it is the user; exactly one is given. */
const PROOFS = ['password', ...DATABASE_TOKENS] as const

const postgresAuth = exactlyOne(
  z.object({
    username: doc(username, 'User that the sidecar logs in as, whatever user the application names.'),
    password: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the password.') }),
      'Password of that user, sent by SCRAM-SHA-256 (bound to the TLS channel where the server offers it) or MD5, and in clear text only inside TLS. Read again for new connections when it changes.',
      'none',
    ),
    awsRdsIam: optional(
      z.object({
        region: doc(awsName('us-east-1'), 'Region that the database is in.'),
      }),
      `Logs in with a token that the role of the pod (IRSA, Pod Identity, environment, node) signs for the host, port and user of RDS or Aurora. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    gcpCloudSqlIam: optional(
      choice(),
      `Logs in with an access token of the service account of the pod (Workload Identity) for Cloud SQL or AlloyDB; written as \`gcpCloudSqlIam: {}\`. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    azureEntra: optional(
      choice(),
      `Logs in with a token of Microsoft Entra for the workload or managed identity of the pod; written as \`azureEntra: {}\`. ${TOKEN_LIFE} Needs tls.`,
      'none',
    ),
    clientPassword: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the password.') }),
      'Password that the application itself must give, as any user, by SCRAM-SHA-256: for pods in which not every container may use the database. It never goes to the server. Read again for new connections when it changes.',
      'none, the application needs no password',
    ),
  }),
  PROOFS,
  'auth.postgres',
)

export const auth = exactlyOne(
  z.object({
    bearer: optional(
      z.object({ secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the token.') }),
      'Sends `Authorization: Bearer` with a token.',
      'none',
    ),
    basic: optional(
      z.object({
        secretName: doc(objectName(), 'Secret of type kubernetes.io/basic-auth with the keys username and password.'),
      }),
      'Sends `Authorization: Basic` with a user name and a password.',
      'none',
    ),
    header: optional(
      z.object({
        name: doc(headerName, 'Name of the header field. What the application sends under it is replaced.'),
        secretKeyRef: doc(secretKeyRef(), 'Key of a Secret that holds the value.'),
      }),
      'Sends a header field of any name, such as X-Api-Key.',
      'none',
    ),
    serviceAccountToken: optional(
      serviceAccountToken,
      'Sends `Authorization: Bearer` with a token of the service account of the pod, which the kubelet writes into the sidecar alone and renews. The pod must have been started since this was added.',
      'none',
    ),
    oauth2ClientCredentials: optional(
      oauth2,
      'Sends `Authorization: Bearer` with a token of an OAuth 2.0 issuer, fetched once for all requests, renewed before it expires and used until it does. Requests before the first token wait, within timeouts.connect; an answer 401 of the upstream makes another token be fetched, and what can be sent again is.',
      'none',
    ),
    redis: optional(
      redisAuth,
      'Logs in each connection to Redis. The application needs no password, and one that it sends is not looked at.',
      'none',
    ),
    awsSigV4: optional(
      z.object({
        service: doc(
          awsName('execute-api'),
          'Name of the service in signatures, such as s3, execute-api, es or dynamodb.',
        ),
        region: doc(awsName('us-east-1'), 'Region that the service is in.'),
      }),
      'Signs each attempt with Signature Version 4 and the keys of the role of the pod (IRSA, Pod Identity, environment, node). A body is kept up to retry.maxBufferedBody to be signed; a larger one goes to S3 as UNSIGNED-PAYLOAD and is refused with 413 for any other service.',
      'none',
    ),
    gcpIdToken: optional(
      z.object({
        audience: doc(audience, 'Whom the token is for, such as the URL of a service on Cloud Run.'),
      }),
      'Sends `Authorization: Bearer` with an ID token of Google for the service account of the pod (Workload Identity), fetched and renewed as a token of oauth2ClientCredentials is.',
      'none',
    ),
    postgres: optional(
      postgresAuth,
      'Logs in at a PostgreSQL server, so that the application needs no password. PostgreSQL only.',
      'none',
    ),
  }),
  [
    'bearer',
    'basic',
    'header',
    'serviceAccountToken',
    'oauth2ClientCredentials',
    'awsSigV4',
    'gcpIdToken',
    'redis',
    'postgres',
  ],
  'auth',
)
