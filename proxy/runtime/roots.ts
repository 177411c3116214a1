/** The CAs that Node trusts by itself, which the image keeps Node from reading until somebody asks for them. */

/**
 * Of the image: with it Node leaves its own roots alone. Without, it parses all 140 of them in a thread as soon as node:tls is loaded,
 * and puts them into a store that it compares every other store with: 50 million instructions and 0.7 MB, also of a sidecar whose
 * upstreams all name a CA of their own.
 */
const FLAG = '--use-openssl-ca'

let isDone = false

/**
 * Call it before anything is connected to over TLS that names no CA: Node's roots, and those of NODE_EXTRA_CA_CERTS, are what a
 * connection is verified by then, whatever the flag says. Does nothing when it was called before, or without the flag.
 */
export function trustNodeRoots(): void {
  if (isDone) return
  isDone = true
  if (!process.execArgv.includes(FLAG)) return
  const { getCACertificates, setDefaultCACertificates } = process.getBuiltinModule('node:tls')
  setDefaultCACertificates([...getCACertificates('bundled'), ...getCACertificates('extra')])
}
