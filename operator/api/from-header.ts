/** An upstream that each request names in a header field. */
import { z } from 'zod'
import { doc, hostPattern, listSet } from '../../common/schema-kit.ts'
import { writtenFieldName } from './fields.ts'

export const fromHeader = z.object({
  name: doc(
    writtenFieldName('it cannot name an upstream'),
    'Name of the header field, such as X-Upstream-Host, whose value is host or host:port. It is removed before the request is sent. A request without it is answered 404 with no_route.',
  ),
  allowed: doc(
    listSet(hostPattern(), 32).min(1),
    'Hosts that may be named; others are answered 404 with no_route. A name, `*.` and a domain for every name below it, an address or a range, each with `:port` behind it or without for every port.',
  ),
})
