/** Certificates for tests, made by openssl: a CA, and leaves that are right or wrong in one respect each. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface LeafOptions {
  /** Subject alternative names: DNS names and IP addresses. Default: localhost, 127.0.0.1, ::1. */
  readonly names?: readonly string[]
  /** Default: yesterday. */
  readonly notBefore?: Date
  /** Default: in 30 days. */
  readonly notAfter?: Date
  /** Default: the certificate is for servers and clients. */
  readonly usage?: 'serverAuth' | 'clientAuth'
  /** Common name of the subject; default: the first name. */
  readonly commonName?: string
}

export interface Leaf {
  /** PEM of the certificate, and after it of the intermediate when it was signed by one. */
  readonly cert: string
  readonly key: string
}

export interface Authority {
  /** PEM of the certificate of this CA. */
  readonly cert: string
  issue(options?: LeafOptions): Leaf
  /**
   * A CA below this one; what it issues carries its certificate along.
   * @param constraints further lines of its extensions
   */
  intermediate(commonName?: string, constraints?: readonly string[]): Authority
}

const DAY_MS = 86_400_000

/** Makes certificate authorities in a temporary directory. `remove()` deletes it. */
export class Pki {
  readonly #dir = mkdtempSync(join(tmpdir(), 'ambassador-pki-'))
  #count = 0

  /** A root CA. */
  authority(commonName = 'Test Root CA'): Authority {
    const id = this.#next()
    const config = this.#write(
      `${id}.cnf`,
      `[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n`,
    )
    const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650']
    this.#openssl([...args, '-subj', `/CN=${commonName}`, '-config', config, ...this.#out(id)])
    return this.#authorityOf(id, '')
  }

  /** A key and a certificate that signed itself. */
  selfSigned(options: LeafOptions = {}): Leaf {
    return this.#issue(null, options)
  }

  remove(): void {
    rmSync(this.#dir, { recursive: true, force: true })
  }

  #authorityOf(id: string, chain: string): Authority {
    return {
      cert: this.#read(`${id}.crt`),
      issue: (options = {}) => {
        const leaf = this.#issue(id, options)
        return { cert: leaf.cert + chain, key: leaf.key }
      },
      intermediate: (commonName = 'Test Intermediate CA', constraints = []) => {
        const child = this.#sign(id, commonName, [
          ...constraints,
          'basicConstraints=critical,CA:TRUE',
          'keyUsage=critical,keyCertSign,cRLSign',
          'subjectKeyIdentifier=hash',
          'authorityKeyIdentifier=keyid',
        ])
        return this.#authorityOf(child, this.#read(`${child}.crt`) + chain)
      },
    }
  }

  #issue(issuer: string | null, options: LeafOptions): Leaf {
    const names = options.names ?? ['localhost', '127.0.0.1', '::1']
    const san = names.map((name) => (isIP(name) === 0 ? `DNS:${name}` : `IP:${name}`))
    const extensions = [
      'basicConstraints=critical,CA:FALSE',
      `extendedKeyUsage=${options.usage ?? 'serverAuth,clientAuth'}`,
      ...(san.length > 0 ? [`subjectAltName=${san.join(',')}`] : []),
    ]
    const id = this.#sign(issuer, options.commonName ?? names[0] ?? 'nobody', extensions, options)
    return { cert: this.#read(`${id}.crt`), key: this.#read(`${id}.key`) }
  }

  /** `openssl ca` and not `x509 -req`: it alone takes both dates (OpenSSL before 3.4). */
  #sign(issuer: string | null, commonName: string, extensions: readonly string[], dates: LeafOptions = {}): string {
    const id = this.#next()
    const by = issuer ?? id
    this.#write(`${id}.db`, '')
    this.#write(`${id}.db.attr`, 'unique_subject=no\n')
    const config = this.#write(
      `${id}.cnf`,
      `[req]\ndistinguished_name=dn\n[dn]\n[ca]\ndefault_ca=this\n[this]\ndatabase=${join(this.#dir, `${id}.db`)}\n` +
        `new_certs_dir=${this.#dir}\ndefault_md=sha256\npolicy=policy\nrand_serial=yes\n[policy]\ncommonName=supplied\n` +
        `[v3]\n${extensions.join('\n')}\n`,
    )
    const request = join(this.#dir, `${id}.csr`)
    const key = join(this.#dir, `${id}.key`)
    this.#openssl([
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-config', config],
      ...['-subj', `/CN=${commonName}`, '-keyout', key, '-out', request],
    ])
    const notBefore = dates.notBefore ?? new Date(Date.now() - DAY_MS)
    const notAfter = dates.notAfter ?? new Date(Date.now() + 30 * DAY_MS)
    this.#openssl([
      ...['ca', '-batch', '-notext', '-config', config, '-extensions', 'v3', '-in', request],
      ...['-keyfile', join(this.#dir, `${by}.key`), '-out', join(this.#dir, `${id}.crt`)],
      ...(issuer === null ? ['-selfsign'] : ['-cert', join(this.#dir, `${issuer}.crt`)]),
      ...['-startdate', asn1Time(notBefore), '-enddate', asn1Time(notAfter)],
    ])
    return id
  }

  #next(): string {
    this.#count++
    return `c${this.#count}`
  }

  #out(id: string): string[] {
    return ['-keyout', join(this.#dir, `${id}.key`), '-out', join(this.#dir, `${id}.crt`)]
  }

  #write(file: string, content: string): string {
    writeFileSync(join(this.#dir, file), content)
    return join(this.#dir, file)
  }

  #read(file: string): string {
    return readFileSync(join(this.#dir, file), 'utf8')
  }

  #openssl(args: readonly string[]): void {
    execFileSync('openssl', args, { stdio: 'pipe' })
  }
}

function asn1Time(date: Date): string {
  return `${date.toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`
}
