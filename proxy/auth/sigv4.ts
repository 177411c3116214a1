/** Signatures of AWS, version 4, over a request as it goes on the wire. Pure but for the clock, which the caller brings. */

export interface AwsKeys {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

export interface SigningScope {
  readonly service: string
  readonly region: string
}

export interface SignableRequest {
  readonly method: string
  /** Path and query as they are sent. */
  readonly target: string
  /** The fields that are signed, in the order in which they are sent. */
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** SHA-256 of the content in hexadecimal digits, or what AWS takes in its place. */
  readonly payloadHash: string
}

/** Of no content at all. */
export const EMPTY_HASH = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
export const UNSIGNED_PAYLOAD = 'UNSIGNED-PAYLOAD'

const ALGORITHM = 'AWS4-HMAC-SHA256'

/** `20150830T123600Z` */
export function amzDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, '')
}

/** The value of Authorization. @param date as amzDate() gives it, and as X-Amz-Date among the fields */
export function authorization(request: SignableRequest, keys: AwsKeys, scope: SigningScope, date: string): string {
  const { createHmac } = process.getBuiltinModule('node:crypto')
  const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()
  const fields = canonicalFields(request.fields)
  const names = [...fields.keys()].sort()
  const canonical = [
    request.method,
    canonicalPath(request.target, isS3(scope.service)),
    canonicalQuery(request.target),
    ...names.map((name) => `${name}:${fields.get(name)}`),
    '',
    names.join(';'),
    request.payloadHash,
  ].join('\n')
  const day = date.slice(0, 8)
  const credentialScope = `${day}/${scope.region}/${scope.service}/aws4_request`
  const text = [ALGORITHM, date, credentialScope, sha256(canonical)].join('\n')
  const key = [day, scope.region, scope.service, 'aws4_request'].reduce<string | Buffer>(
    hmac,
    `AWS4${keys.secretAccessKey}`,
  )
  const signature = hmac(key, text).toString('hex')
  return `${ALGORITHM} Credential=${keys.accessKeyId}/${credentialScope}, SignedHeaders=${names.join(';')}, Signature=${signature}`
}

/** In hexadecimal digits; text is taken as bytes of latin1 if it is of a head, so hand over bytes where that matters. */
export function sha256(content: string | Buffer): string {
  return process.getBuiltinModule('node:crypto').createHash('sha256').update(content).digest('hex')
}

/** Names whose rules are those of S3: the path is taken as it is, content may go unsigned, and its hash is a field. */
export function isS3(service: string): boolean {
  return service === 's3' || service.startsWith('s3-') || service === 's3express'
}

/** Values of one name joined by a comma, white space at the ends cut off and inside made one space. */
function canonicalFields(fields: SignableRequest['fields']): Map<string, string> {
  const canonical = new Map<string, string>()
  for (const [name, value] of fields) {
    const key = name.toLowerCase()
    const plain = value.trim().replace(/\s+/g, ' ')
    const before = canonical.get(key)
    canonical.set(key, before === undefined ? plain : `${before},${plain}`)
  }
  return canonical
}

/**
 * Every service but S3 normalizes the path that it got and encodes it once more, percent signs included. S3 takes a key as it is, so
 * its path is only brought into the one encoding that S3 itself makes of it.
 */
function canonicalPath(target: string, isObject: boolean): string {
  const path = target.split('?', 1)[0] ?? '/'
  if (isObject)
    return path
      .split('/')
      .map((segment) => encode(decode(segment)))
      .join('/')
  const kept: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment === '..') kept.pop()
    else kept.push(encode(bytesOf(segment)))
  }
  const isFolder = /\/\.{0,2}$/.test(path) && kept.length > 0
  return `/${kept.join('/')}${isFolder && path.endsWith('/') ? '/' : ''}`
}

/** Pairs in the order of their encoded names and values; a plus sign is a space, as servers read it. */
function canonicalQuery(target: string): string {
  const start = target.indexOf('?')
  if (start < 0) return ''
  const pairs = target
    .slice(start + 1)
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair): [string, string] => {
      const at = pair.indexOf('=')
      const part = (text: string): string => encode(decode(text.replaceAll('+', ' ')))
      return at < 0 ? [part(pair), ''] : [part(pair.slice(0, at)), part(pair.slice(at + 1))]
    })
  const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
  pairs.sort(([a, x], [b, y]) => order(a, b) || order(x, y))
  return pairs.map(([name, value]) => `${name}=${value}`).join('&')
}

/** A target comes as latin1 text, one character for each byte; a test may bring more. */
function bytesOf(text: string): Buffer {
  return /^[\0-\xff]*$/.test(text) ? Buffer.from(text, 'latin1') : Buffer.from(text)
}

/** Percent-encodings resolved; what is none stays. */
function decode(text: string): Buffer {
  const bytes = bytesOf(text)
  const decoded: number[] = []
  for (let i = 0; i < bytes.length; i++) {
    const digits = bytes[i] === 0x25 ? bytes.toString('latin1', i + 1, i + 3) : ''
    if (/^[0-9A-Fa-f]{2}$/.test(digits)) {
      decoded.push(Number.parseInt(digits, 16))
      i += 2
    } else decoded.push(bytes[i] as number)
  }
  return Buffer.from(decoded)
}

/** Everything but the unreserved characters of RFC 3986 section 2.3. */
function encode(bytes: Buffer): string {
  let text = ''
  for (const byte of bytes) {
    const character = String.fromCharCode(byte)
    text += /[-._~0-9A-Za-z]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return text
}
