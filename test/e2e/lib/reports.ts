/** What the loads of the end-to-end tests say on stdout (scripts/load.mjs, scripts/burst.mjs). */
import assert from 'node:assert/strict'
import { ask, type Json, type Kubectl } from './kubectl.ts'

/** The newest report of each pod of a load; null: it has not had a first answer yet. */
export async function reports(kubectl: Kubectl, app: string): Promise<Json[]> {
  const pods = await kubectl.pods(`app=${app}`)
  return Promise.all(
    pods.map(async (pod) => {
      const out = await kubectl.lastLine(pod.metadata.name)
      return out.trim() === '' ? null : { pod: pod.metadata.name, ...JSON.parse(out) }
    }),
  )
}

/** What the application saw that one pod ran from now on to its end, after it was told to end. */
export async function lastReport(kubectl: Kubectl, pod: string, end: () => Promise<unknown>): Promise<Json> {
  const client = await ask(kubectl.kubeconfig)
  const path = `/api/v1/namespaces/${kubectl.namespace}/pods/${pod}/log`
  // Once it is open it brings the last line, however late this machine looks at it.
  const log = await client.open({ path, query: { container: 'app', tailLines: 1, follow: true } })
  let text = ''
  const read = (async () => {
    for await (const chunk of log.setEncoding('utf8')) text += chunk
  })()
  await Promise.all([end(), read])
  const last = JSON.parse(text.trim().split('\n').at(-1) || '{}')
  assert.equal(last.kind, 'last', `the application of ${pod} ended by itself`)
  return last
}

/** What `count` requests of the container `app` saw. */
export async function burst(kubectl: Kubectl, target: string, url: string, of: Json): Promise<Json> {
  const result = await kubectl.exec(target, ['node', '/scripts/burst.mjs', url, JSON.stringify(of)])
  assert.equal(result.code, 0, result.stderr)
  return JSON.parse(result.stdout)
}
