/** Requests to the API server of a kubeconfig, for tests and for the cluster itself: a start of kubectl costs a tenth of a second of CPU time. */

import { readFile } from 'node:fs/promises'
import { load } from 'js-yaml'
import { createClient, type KubeClient } from '../../operator/kube/client.ts'
import { type Connection, connect } from '../../operator/kube/connection.ts'
import { ApiError } from '../../operator/kube/errors.ts'

// biome-ignore lint/suspicious/noExplicitAny: objects of the API server are read as they come
export type Json = any

export interface Api {
  readonly client: KubeClient
  readonly connection: Connection
}

/** By kubeconfig. Their resting connections keep no process alive. */
const known = new Map<string, Promise<Api>>()

/** Always the same for the same kubeconfig. */
export const apiOf = (kubeconfig: string): Promise<Api> => {
  const found = known.get(kubeconfig)
  if (found !== undefined) return found
  const made = connectTo(kubeconfig).then((connection) => ({
    connection,
    client: createClient(connection, { timeoutMs: 60_000 }),
  }))
  known.set(kubeconfig, made)
  return made
}

/** Forgets what is known of a kubeconfig: another cluster may take its path. */
export const forget = (kubeconfig: string): void => {
  known.delete(kubeconfig)
}

/** Asks the API server of a kubeconfig, on connections that are kept. */
export const ask = async (kubeconfig: string): Promise<KubeClient> => (await apiOf(kubeconfig)).client

/** One object; undefined when there is none. @throws {ApiError} */
export const find = async (kubeconfig: string, path: string, timeoutMs?: number): Promise<Json> => {
  try {
    return await (await ask(kubeconfig)).request<Json>({ path, timeoutMs })
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined
    throw error
  }
}

/** As operator/kube/connection.ts does it; but that loads a library, for half a second, which a kubeconfig with one certificate in it does not need. */
export const connectTo = async (kubeconfig: string): Promise<Connection> => {
  const { clusters, users } = load(await readFile(kubeconfig, 'utf8')) as Json
  const { server, 'certificate-authority-data': ca, ...otherOfCluster } = clusters[0].cluster
  const { 'client-certificate-data': cert, 'client-key-data': key, ...otherOfUser } = users[0].user
  const isPlain = clusters.length === 1 && users.length === 1 && [ca, cert, key].every((each) => each !== undefined)
  if (!isPlain || Object.keys({ ...otherOfCluster, ...otherOfUser }).length > 0) return connect({ kubeconfig })
  const decode = (base64: string): Buffer => Buffer.from(base64, 'base64')
  const identity = { headers: {}, tls: { ca: decode(ca), cert: decode(cert), key: decode(key) } }
  return { server: new URL(server), namespace: 'default', identity: async () => identity }
}
