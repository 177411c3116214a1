/** Which hosts an Ambassador may ever dial. */
import { z } from 'zod'
import { doc, hostPattern, listSet } from '../../common/schema-kit.ts'

export const egress = z.object({
  allow: doc(
    listSet(hostPattern(), 64).min(1),
    'Hosts: a name, `*.` and a domain for every name below it, an address or a range such as 10.0.0.0/8, each with `:port` behind it or without for every port. A name is allowed at whatever address DNS gives for it, those of the link (169.254.0.0/16, fe80::/10) aside; an address is allowed whatever its name. Everything else is refused with egress_denied before a byte is sent, health checks and token URLs too.',
  ),
})
