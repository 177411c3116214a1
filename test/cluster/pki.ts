/** Keys and certificates of one cluster, made with openssl, and kubeconfigs with them. */

import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'

/** Files of one certificate. */
export interface KeyPair {
  readonly certificate: string
  readonly key: string
}

/** All keys of a cluster are P-256: a hundred times faster to make than RSA. */
const CURVE = ['ecparam', '-name', 'prime256v1', '-genkey', '-noout']

/** The certificates of one cluster, in one folder. */
export class Pki {
  readonly #directory: string
  readonly ca: KeyPair

  constructor(directory: string) {
    this.#directory = directory
    this.ca = this.#pair('ca')
  }

  /** Makes the folder, and the authority that signs the others. */
  async createAuthority(): Promise<void> {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    await run('openssl', [...CURVE, '-out', this.ca.key])
    const request = ['req', '-x509', '-new', '-key', this.ca.key, '-days', '3650', '-subj', '/CN=ambassador-test-ca']
    await run('openssl', [...request, '-out', this.ca.certificate])
  }

  /** Makes a pair without a certificate, for the tokens of service accounts: the public key stands in the certificate's place. */
  async createKey(name: string): Promise<KeyPair> {
    const pair = this.#pair(name)
    await run('openssl', [...CURVE, '-out', pair.key])
    await run('openssl', ['pkey', '-in', pair.key, '-pubout', '-out', pair.certificate])
    return pair
  }

  /** Issues a certificate for a server with these names and addresses. */
  server(name: string, alternativeNames: readonly string[]): Promise<KeyPair> {
    return this.#issue(name, `/CN=${name}`, 'serverAuth', alternativeNames)
  }

  /** Issues a certificate by which the API server knows this user, of this group. */
  client(name: string, user: string, group: string): Promise<KeyPair> {
    return this.#issue(name, `/O=${group}/CN=${user}`, 'clientAuth', [])
  }

  async #issue(name: string, subject: string, usage: string, alternativeNames: readonly string[]): Promise<KeyPair> {
    const pair = this.#pair(name)
    if (existsSync(pair.certificate)) return pair
    const request = join(this.#directory, `${name}.csr`)
    const extensions = join(this.#directory, `${name}.ext`)
    writeFileSync(extensions, renderExtensions(usage, alternativeNames))
    await run('openssl', [...CURVE, '-out', pair.key])
    await run('openssl', ['req', '-new', '-key', pair.key, '-subj', subject, '-out', request])
    const signer = ['-CA', this.ca.certificate, '-CAkey', this.ca.key, '-days', '3650']
    // A serial number of its own, and no counter in a file: certificates are issued side by side.
    signer.push('-set_serial', `0x${randomBytes(8).toString('hex')}`)
    await run('openssl', ['x509', '-req', '-in', request, ...signer, '-extfile', extensions, '-out', pair.certificate])
    return pair
  }

  #pair(name: string): KeyPair {
    return { certificate: join(this.#directory, `${name}.crt`), key: join(this.#directory, `${name}.key`) }
  }
}

/** Extensions of a certificate, as openssl reads them. A name that looks like an address becomes one. */
export const renderExtensions = (usage: string, alternativeNames: readonly string[]): string => {
  const names = alternativeNames.map((name) => `${/^[\d.]+$/.test(name) ? 'IP' : 'DNS'}:${name}`)
  return [
    'basicConstraints = critical,CA:FALSE',
    'keyUsage = critical,digitalSignature',
    `extendedKeyUsage = ${usage}`,
    ...(names.length === 0 ? [] : [`subjectAltName = ${names.join(',')}`]),
    '',
  ].join('\n')
}

/** A kubeconfig with everything inside it, so that one file can be handed on. JSON is YAML. */
export const renderKubeconfig = (name: string, server: string, ca: KeyPair, client: KeyPair): string =>
  `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': name,
      contexts: [{ name, context: { cluster: name, user: name } }],
      clusters: [{ name, cluster: { server, 'certificate-authority-data': base64(ca.certificate) } }],
      users: [
        {
          name,
          user: { 'client-certificate-data': base64(client.certificate), 'client-key-data': base64(client.key) },
        },
      ],
    },
    undefined,
    2,
  )}\n`

const base64 = (file: string): string => readFileSync(file).toString('base64')
