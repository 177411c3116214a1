/** Secrets in Ambassadors that were written wrongly, in files beside them and in variables, looked for in what the CLI prints. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { programArgs } from '../../helpers/built.ts'
import { Hidden } from '../../helpers/hidden.ts'
import { freePort } from '../../helpers/ports.ts'

const ROOT = join(import.meta.dirname, '../../..')
const dir = mkdtempSync(join(tmpdir(), 'ambassador-cli-redaction-'))
after(() => rmSync(dir, { recursive: true }))

const hidden = new Hidden()
const hide = (place: string) => hidden.hide(place)

/** What a verb prints until it ends, or until it serves. */
async function ambassador(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const child = spawn(process.execPath, await programArgs(['cli/main.ts', ...args]), {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      said += chunk
      if (said.includes('config in force')) child.kill('SIGINT')
    })
  }
  await once(child, 'close')
  return said
}

/** An Ambassador with these lines in its upstream. */
function file(name: string, lines: readonly string[], more = ''): string {
  const path = join(dir, `${name}.yaml`)
  const text = `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: ${name} }
spec:
  protocol: HTTP
  listen: { port: 8081 }
  upstreams:
  - name: live
    endpoints: [ { host: 127.0.0.1, port: 9 } ]
${lines.map((line) => `    ${line}\n`).join('')}${more}`
  writeFileSync(path, text)
  return path
}

describe('a secret', { concurrency: 3 }, () => {
  it('that stands where a reference belongs is not in what validate, render and run print', async () => {
    const wrong: [name: string, lines: string[], more?: string][] = [
      ['text', [`auth: { bearer: ${hide('text in place of auth.bearer')} }`]],
      ['reference', [`auth: { bearer: { secretKeyRef: ${hide('text in place of a reference')} } }`]],
      ['value', [`auth: { bearer: { value: ${hide('field that is none')} } }`]],
      ['basic', [`auth: { basic: { username: u, password: ${hide('password beside a user')} } }`]],
      ['header', [`auth: { header: { name: X-Key, value: ${hide('value of a header')} } }`]],
      ['whole', [`auth: ${hide('text in place of auth')}`]],
      ['list', [`auth: [ ${hide('list in place of auth')} ]`]],
      ['pair', [`tls: { clientCertificate: ${hide('text in place of a client certificate')} }`]],
      ['ca', [`tls: { ca: ${hide('text in place of a CA')} }`]],
      [
        'oauth2',
        [
          'auth:',
          '  oauth2ClientCredentials:',
          `    tokenUrl: https://user:${hide('user info of a token URL')}@h/token`,
          '    clientId: shop',
          `    clientSecret: ${hide('text in place of clientSecret')}`,
        ],
      ],
      ['collector', [], `  tracing: { otlpEndpoint: "http://user:${hide('user info of a collector')}@h:4318" }\n`],
      [
        'secret',
        [],
        `---\napiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { token: ${hide('Secret in the same file')} }\n`,
      ],
    ]
    const files = wrong.flatMap(([name, lines, more]) => ['-f', file(name, lines, more)])
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    let said = ''
    for (const args of [['validate'], ['render'], ['run', ...own]]) {
      const text = await ambassador([...args, ...files])
      // Every file but that with the Secret was complained of.
      for (const [name] of wrong) if (name !== 'secret') assert.match(text, new RegExp(`/${name}\\.yaml:\\d+: `), name)
      said += text
    }
    assert.deepEqual(hidden.shownIn(said), [])
  })

  it('that a reference leads to and that cannot be used is not in what run prints', async () => {
    const path = file('refs', [
      'auth: { basic: { username: { env: DB_USER }, password: { file: ./password } } }',
      'tls:',
      '  ca: { secretKeyRef: { name: tls, key: ca } }',
      '  clientCertificate: { secretName: tls }',
    ])
    mkdirSync(join(dir, 'tls'))
    const key = hide('key in place of a CA')
    writeFileSync(join(dir, 'tls', 'ca'), `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`)
    writeFileSync(join(dir, 'tls', 'tls.crt'), `-----BEGIN CERTIFICATE-----\n${hide('broken certificate')}\n`)
    writeFileSync(join(dir, 'tls', 'tls.key'), hide('key that is none'))
    writeFileSync(join(dir, 'password'), `${hide('first line of a password')}\n${hide('its second line')}`)
    const env = { DB_USER: `${hide('user with a colon')}:x`, OTHER: hide('variable that nobody asked for') }
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const said = await ambassador(['run', '-f', path, '--secrets', dir, '--log-level', 'debug', ...own], env)
    assert.match(said, /auth\.basic/)
    assert.match(said, /tls\.ca/)
    assert.deepEqual(hidden.shownIn(said), [])
  })

  it('of a pod is not in what inject says beside the pod itself', async () => {
    const path = join(dir, 'pod.yaml')
    const pod = `apiVersion: v1
kind: Pod
metadata: { name: p, annotations: { ambassador.dev/inject: nobody, ambassador.dev/log-level: debug } }
spec: { containers: [ { name: app, image: app, env: [ { name: TOKEN, value: ${hide('variable of a container')} } ] } ] }
`
    writeFileSync(path, pod)
    const said = await ambassador(['inject', '-f', path])
    assert.match(said, /AmbassadorNotFound|does not exist/)
    assert.deepEqual(hidden.shownIn(said.replace(pod, '')), [])
  })
})
