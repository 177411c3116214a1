/** Connections that are made for one message each, and connections that are open and say nothing: what each of them costs. */

import { load } from '../load.ts'
import { tcp, tls } from './http.ts'
import type { Suite } from './suite.ts'

const comingAndGoing = (of: Suite, name: string, about: string): Suite => ({
  ...of,
  name,
  about: `${about}, a connection for each message of http, 32 at a time`,
  unit: 'conn',
  load: (options) => load({ ...options, fields: { Connection: 'close' } }),
})

const idle = (of: Suite, name: string, about: string): Suite => ({
  ...of,
  name,
  about: `${about}, connections that had one message and are idle`,
  load: null,
})

export const connections: readonly Suite[] = [
  comingAndGoing(tcp, 'tcp-connect', 'TCP to TCP'),
  comingAndGoing(tls, 'tls-connect', 'TCP to TLS'),
  idle(tcp, 'tcp-idle', 'TCP to TCP'),
  idle(tls, 'tls-idle', 'TCP to TLS'),
]
