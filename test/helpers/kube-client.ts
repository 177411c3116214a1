/** A client whose answers a test gives, and which remembers what it was asked. */
import type { KubeClient, KubeRequest } from '../../operator/kube/client.ts'

export interface FakeKubeClient extends KubeClient {
  readonly requests: KubeRequest[]
  /** What the next requests get. Default: the body of the request. */
  respond(how: (request: KubeRequest) => unknown): void
}

export function fakeKubeClient(): FakeKubeClient {
  const requests: KubeRequest[] = []
  let how: (request: KubeRequest) => unknown = (request) => request.body
  return {
    requests,
    respond(next) {
      how = next
    },
    async request<T>(request: KubeRequest) {
      requests.push(request)
      return (await how(request)) as T
    },
    open: () => Promise.reject(new Error('not a watch')),
    close() {},
  }
}
