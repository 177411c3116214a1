/** A bare relay on the Node that the sidecar runs on: what is between it and the others no line of ours can mend. */

import { join } from 'node:path'
import { imageRuntime } from '../../../build/image-runtime.ts'
import type { Contender } from '../contender.ts'
import { type Running, start } from '../process.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** @param tls of PostgreSQL; null: plain text */
export const startRelay = (
  core: number,
  port: number,
  upstream: { readonly port: number; readonly tls: { readonly caFile: string; readonly serverName: string } | null },
): Promise<Running> => {
  const { flags, env } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
  const { tls } = upstream
  const args = [String(port), String(upstream.port), ...(tls === null ? [] : [tls.caFile, tls.serverName])]
  return start(core, process.execPath, [...flags, join(import.meta.dirname, '../relay.ts'), ...args], { port, env })
}

export const relay: Contender = {
  name: 'relay',
  isOnlyByName: true,
  features: 'none: the floor of a sidecar on Node',
  prepare: () => Promise.resolve(`Node ${process.version}`),
  start: ({ core, port, upstream }) => startRelay(core, port, upstream),
}
