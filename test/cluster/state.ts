/** What is known of a cluster between two commands: one small file in its folder. */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, runDirectory } from '../../build/machine/cache.ts'
import type { Daemon } from './daemons.ts'

/** Written after each thing that was made, so that a killed `up` leaves nothing that nobody knows of. */
export interface ClusterState {
  readonly name: string
  /** Which of the address ranges of network.ts it uses. */
  readonly slot: number
  /** What it was made of; another value means that it must be made anew. */
  readonly recipe: string
  /** Daemons by name. */
  readonly daemons: Readonly<Record<string, Daemon>>
  /** Names of the nodes that were started, or begun. */
  readonly nodes: readonly string[]
  /** False while nodes are being started, and for ever when that was interrupted: such a cluster is made anew. */
  readonly isComplete: boolean
}

/** State of a cluster; undefined when there is none of that name. */
export const readState = (name: string): ClusterState | undefined => {
  const file = stateFile(name)
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as ClusterState) : undefined
}

export const writeState = (state: ClusterState): void => {
  mkdirSync(runDirectory(state.name), { recursive: true })
  const file = stateFile(state.name)
  writeFileSync(`${file}.new`, JSON.stringify(state, undefined, 2))
  renameSync(`${file}.new`, file)
}

/** Names of all clusters that have a folder, running or not. */
export const clusterNames = (): string[] => {
  const directory = join(cacheRoot(), 'run')
  return existsSync(directory) ? readdirSync(directory).sort() : []
}

const stateFile = (name: string): string => join(runDirectory(name), 'state.json')
