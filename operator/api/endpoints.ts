/** Where the endpoints of an upstream are: written out, in DNS, or behind a Service. */
import { z } from 'zod'
import { dnsName, doc, host, integer, label, optional, port, rule, servicePort } from '../../common/schema-kit.ts'

const ZONE_PATTERN = '^[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?$'
const ZONE_REMEDY = 'use what the label topology.kubernetes.io/zone of its node says, such as eu-west-1a'

const zone = () =>
  rule(z.string().max(63), {
    cel: `self.matches('${ZONE_PATTERN}')`,
    holds: (text) => new RegExp(ZONE_PATTERN).test(text),
    message: `not the name of a zone: ${ZONE_REMEDY}`,
    says: {
      cel: `"'" + self + "' is not the name of a zone: ${ZONE_REMEDY}"`,
      text: (text) => `'${text}' is not the name of a zone: ${ZONE_REMEDY}`,
    },
  })

export const endpoint = z.object({
  host: doc(
    host(),
    'DNS name or IP address. A name is looked up again when its record expires, and each of its addresses is an endpoint of this weight and priority.',
  ),
  port: doc(port(), 'TCP port.'),
  weight: doc(integer(1, 1000), 'Share of the traffic relative to the other endpoints of the same priority.').default(
    1,
  ),
  priority: doc(
    integer(0, 15),
    'Endpoints of the lowest number are used; those of the next one only while none of a lower one is available.',
  ).default(0),
  zone: optional(zone(), 'Zone that it is in, for loadBalancing.zonePreference.', 'not known'),
})

export const dns = z.object({
  hostname: doc(
    dnsName(),
    'DNS name of which every A and AAAA record is an endpoint, looked up again when the record expires.',
  ),
  port: doc(port(), 'TCP port of every endpoint.'),
})

/** RFC 2782: the service and its protocol, each behind an underscore, then the domain, which the search list may complete. */
const SRV_PATTERN = '^_[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?[.]_[a-zA-Z]+([.][-_a-zA-Z0-9]{1,63})*[.]?$'
const SRV_PORT = 'give the name alone, the port is in its record'
const SRV_SHAPE = 'begin with service and protocol, each with an underscore, such as _redis._tcp.example.com'

export const srv = z.object({
  name: doc(
    rule(z.string().max(253), {
      cel: `self.matches('${SRV_PATTERN}')`,
      holds: (text) => new RegExp(SRV_PATTERN).test(text),
      message: `not the name of an SRV record: ${SRV_SHAPE}`,
      says: {
        cel: `"'" + self + "' is not the name of an SRV record: " + (self.matches('^[^:]+:[0-9]+$') ? '${SRV_PORT}' : '${SRV_SHAPE}')`,
        text: (text) =>
          `'${text}' is not the name of an SRV record: ${/^[^:]+:[0-9]+$/.test(text) ? SRV_PORT : SRV_SHAPE}`,
      },
    }),
    'Name of the SRV records (RFC 2782). Each target gives endpoints with its port, priority and weight, which its addresses share; records and addresses are looked up again when they expire.',
  ),
})

export const service = z.object({
  name: doc(label(), 'Name of the Service.'),
  namespace: optional(
    label(),
    'Namespace of the Service. Another one than that of the Ambassador must allow it: the Service there carries the annotation `ambassador.dev/allow-from` with the names of namespaces, or `*`.',
    'that of the Ambassador',
  ),
  port: doc(servicePort(), 'Port of the Service, by number or by name.'),
})
