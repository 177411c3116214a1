import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { rootCertificates } from 'node:tls'
import { promisify } from 'node:util'
import { NODE_FLAGS } from '../../../../cli/proxy-process.ts'
import { Pki } from '../../../helpers/pki.ts'

const ROOT = join(import.meta.dirname, '../../../..')
const directory = mkdtempSync(join(tmpdir(), 'ambassador-roots-'))
const pki = new Pki()
after(() => {
  pki.remove()
  rmSync(directory, { recursive: true })
})

const BEGIN = `
const tls = require('node:tls')
const { trustNodeRoots } = await import('./proxy/runtime/roots.ts')
const { TlsContexts } = await import('./proxy/tls/contexts.ts')
const read = () => ({ state: 'Found', bytes: require('node:fs').readFileSync(process.env.CA) })
const contexts = new TlsContexts({ read, name: () => 'the CA', systemRoots: '/nonexistent' })
const config = { serverName: null, ca: null, clientCertificate: null, minVersion: 'TLSv1.2' }
const trusted = () => tls.getCACertificates('default').length
const open = (ca) => contexts.open({ ...config, ca }).failure
const own = { kind: 'file', path: process.env.CA }
`
const ca = pki.authority()
const caFile = join(directory, 'ca.pem')
writeFileSync(caFile, ca.cert)

/** What an expression comes to in a process with the flags of the image, on a machine without roots. */
async function evaluated(expression: string, env: Readonly<Record<string, string>> = {}): Promise<unknown> {
  const script = `void (async () => {${BEGIN};console.log(JSON.stringify(await (${expression})))})()`
  const { stdout } = await promisify(execFile)(process.execPath, [...NODE_FLAGS, '--eval', script], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], SSL_CERT_FILE: '/nonexistent', SSL_CERT_DIR: '/nonexistent', CA: caFile, ...env },
  })
  return JSON.parse(stdout)
}

describe('the roots of Node, with the flags of the image', () => {
  it('are not read for an upstream that names its CA, and are when somebody asks for them', async () => {
    const counts = await evaluated('[open(own), trusted(), trustNodeRoots(), trusted()]')
    assert.deepEqual(counts, [null, 0, null, rootCertificates.length])
  })

  it('are trusted by an upstream that names no CA', async () => {
    assert.deepEqual(await evaluated('[open(null), trusted()]'), [null, rootCertificates.length])
  })

  it('come with those of NODE_EXTRA_CA_CERTS, by which a connection is then verified', async () => {
    const { cert, key } = ca.issue()
    const connected = `new Promise((resolve) => {
      trustNodeRoots()
      const server = tls.createServer({ cert: process.env.CERT, key: process.env.KEY }).listen(0, '127.0.0.1', () => {
        const socket = tls.connect({ port: server.address().port, host: '127.0.0.1', servername: 'localhost' }, () => {
          resolve([socket.authorized, trusted()])
          socket.destroy()
          server.close()
        })
        socket.on('error', ({ code }) => { resolve(code); server.close() })
      })
    })`
    const pair = { CERT: cert, KEY: key }
    assert.equal(await evaluated(connected, pair), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE')
    assert.deepEqual(await evaluated(connected, { ...pair, NODE_EXTRA_CA_CERTS: caFile }), [
      true,
      rootCertificates.length + 1,
    ])
  })
})
