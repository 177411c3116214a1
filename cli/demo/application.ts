/** The application of the demo: it knows http://localhost:PORT and nothing else. */
import { Agent, request } from 'node:http'

/** What it got. */
export interface Got {
  /** 0: no answer. */
  readonly status: number
  /** x-ambassador-reason: why the sidecar answered itself; null when the provider did. */
  readonly reason: string | null
  readonly retryAfter: string | null
  readonly durationMs: number
}

export class Application {
  readonly #agent = new Agent({ keepAlive: true })
  readonly #port: number

  constructor(port: number) {
    this.#port = port
  }

  /** One request, without any retry, token or timeout of its own. */
  get(path = '/v1/charges'): Promise<Got> {
    const startedAt = performance.now()
    return new Promise((resolve) => {
      const done = (status: number, reason: string | null, retryAfter: string | null) =>
        resolve({ status, reason, retryAfter, durationMs: performance.now() - startedAt })
      const outgoing = request({ host: '127.0.0.1', port: this.#port, path, agent: this.#agent }, (answer) => {
        const header = (name: string) => {
          const value = answer.headers[name]
          return typeof value === 'string' ? value : null
        }
        answer.resume()
        answer.on('end', () => done(answer.statusCode ?? 0, header('x-ambassador-reason'), header('retry-after')))
        answer.on('error', () => done(0, null, null))
      })
      outgoing.on('error', () => done(0, null, null))
      outgoing.end()
    })
  }

  /** One after the other. */
  async inTurn(count: number): Promise<Got[]> {
    const all: Got[] = []
    for (let i = 0; i < count; i++) all.push(await this.get())
    return all
  }

  /** All at once. */
  atOnce(count: number): Promise<Got[]> {
    return Promise.all(Array.from({ length: count }, () => this.get()))
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** How many have this status, and this reason when one is given. */
export function count(all: readonly Got[], status: number, reason?: string): number {
  return all.filter((each) => each.status === status && (reason === undefined || each.reason === reason)).length
}
