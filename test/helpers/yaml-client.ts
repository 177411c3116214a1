/** Sends YAML as it stands to an API server, so that its reader is tested and not ours. */
import { Agent, request } from 'node:https'
import { text } from 'node:stream/consumers'
import { connectTo } from '../cluster/client.ts'

/** No answer in this time is an error. */
const TIMEOUT_MS = 15_000

export interface YamlClient {
  /** Status and JSON body of the answer, whatever it is. */
  send(method: string, path: string, body?: string): Promise<{ readonly status: number; readonly body: unknown }>
  close(): void
}

/** A client for a kubeconfig. Bodies are applied server-side (`PATCH`) or created (`POST`). */
export async function yamlClient(kubeconfig: string): Promise<YamlClient> {
  const connection = await connectTo(kubeconfig)
  const { headers, tls } = await connection.identity()
  const agent = new Agent({ keepAlive: true, ...tls })
  return {
    send: (method, path, body) =>
      new Promise((resolve, reject) => {
        const contentType = method === 'PATCH' ? 'application/apply-patch+yaml' : 'application/yaml'
        const call = request(new URL(path, connection.server), {
          method,
          agent,
          signal: AbortSignal.timeout(TIMEOUT_MS),
          headers: { ...headers, accept: 'application/json', ...(body && { 'content-type': contentType }) },
        })
        call.on('error', (cause) => reject(new Error(`${method} ${path}: ${cause.message}`, { cause })))
        call.on('response', (response) => {
          text(response)
            .then((answer) => ({ status: response.statusCode ?? 0, body: parsed(answer) }))
            .then(resolve, reject)
        })
        call.end(body)
      }),
    close: () => agent.destroy(),
  }
}

/** A path that is not served is answered in plain text. */
function parsed(answer: string): unknown {
  try {
    return JSON.parse(answer)
  } catch {
    return answer
  }
}
