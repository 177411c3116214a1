/** How TLS is spoken with whoever a connection goes to, and whom it trusts. */
import { z } from 'zod'
import {
  configMapKeyRef,
  dnsName,
  doc,
  exactlyOne,
  objectName,
  optional,
  rule,
  secretKeyRef,
} from '../../common/schema-kit.ts'

const ca = exactlyOne(
  z.object({
    secretKeyRef: optional(secretKeyRef(), 'Key of a Secret that holds the bundle.', 'none'),
    configMapKeyRef: optional(configMapKeyRef(), 'Key of a ConfigMap that holds the bundle.', 'none'),
  }),
  ['secretKeyRef', 'configMapKeyRef'],
  'ca',
)

export const tlsFields = z.object({
  serverName: optional(
    dnsName(),
    'Name that is sent as SNI and that the certificate must carry.',
    'the host of the endpoint, the target of an SRV record',
  ),
  ca: optional(
    ca,
    'PEM bundle of the certificate authorities that are trusted instead of the system roots. Read again when it changes.',
    'the system roots',
  ),
  clientCertificate: optional(
    z.object({
      secretName: doc(
        objectName(),
        'Secret of type kubernetes.io/tls with the keys tls.crt and tls.key. Read again when it is rotated.',
      ),
    }),
    'Certificate that the sidecar shows to the upstream.',
    'none',
  ),
  minVersion: doc(z.enum(['TLSv1.2', 'TLSv1.3']), 'Oldest version of TLS that is spoken.').default('TLSv1.2'),
  negotiation: optional(
    z.enum(['SSLRequest', 'Direct']),
    'How TLS begins with a PostgreSQL server: SSLRequest asks in plain text first; Direct begins with the first byte and demands the protocol postgresql (ALPN), which servers from 17 on speak. PostgreSQL only.',
    'SSLRequest',
  ),
  insecureSkipVerify: optional(
    z.object({
      reason: doc(
        rule(z.string().max(256), {
          cel: "self.matches('[^ ]')",
          holds: (text) => /[^ ]/.test(text),
          message: 'is empty: say why nobody needs to know whom the sidecar talks to, and until when',
        }),
        'Why, for whoever reads it later; it stands in status and in the log.',
      ),
    }),
    'Takes any certificate of anybody, so that whoever is in between can read and change everything. There is a warning in status, a line in the log and a metric as long as it is there.',
    'chain and name are verified',
  ),
})

/** TLS of a connection: `{}` verifies chain and name by the system roots. */
export const tls = rule(tlsFields, {
  cel: '!has(self.insecureSkipVerify) || !has(self.ca)',
  holds: (value) => value.insecureSkipVerify === undefined || value.ca === undefined,
  field: ['ca'],
  message: 'ca does nothing with insecureSkipVerify: remove one of the two',
})
