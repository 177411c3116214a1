/** A client that writes only while it may: what a replica that lost its lease still has on its way must not reach the API server. */
import type { KubeClient, KubeRequest } from './client.ts'
import { ApiError } from './errors.ts'

export interface FenceOptions {
  /** Asked at the moment of each write. */
  readonly mayWrite: () => boolean
  /** Ends requests that are under way. */
  readonly signal: AbortSignal
}

/** Reads pass. A write that is not allowed fails with reason NotLeading before anything is sent. */
export function fenced(client: KubeClient, { mayWrite, signal }: FenceOptions): KubeClient {
  const within = (request: KubeRequest): KubeRequest => ({
    ...request,
    signal: request.signal === undefined ? signal : AbortSignal.any([request.signal, signal]),
  })
  return {
    async request<T>(request: KubeRequest): Promise<T> {
      if ((request.method ?? 'GET') !== 'GET' && !mayWrite()) {
        throw new ApiError(`${request.method} ${request.path}: this replica does not lead`, {
          status: 0,
          reason: 'NotLeading',
        })
      }
      return client.request<T>(within(request))
    },
    open: (request) => client.open(within(request)),
    close: () => {},
  }
}
