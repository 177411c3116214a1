/** Says what a file is that should have a certificate or a key in PEM form, and has none. */

/** What is often stored in place of PEM. */
const BASE64_OF_BEGIN = Buffer.from('-----BEGIN ').toString('base64').slice(0, 14)
const JAVA_KEY_STORE = Buffer.from([0xfe, 0xed, 0xfe, 0xed])
/** 1.2.840.113549.1.7, as DER has it. */
const PKCS7_OID = Buffer.from('2a864886f70d0107', 'hex')

/** By what follows the outermost SEQUENCE of DER. */
const SEQUENCE = 0x30
const INTEGER = 0x02
const OBJECT_IDENTIFIER = 0x06
/** RFC 7292 section 4: the version of a PFX. */
const PKCS12_VERSION = 3

/** Labels of PEM blocks that are neither a certificate nor a private key. */
const OTHERS: ReadonlyMap<string, string> = new Map([
  ['CERTIFICATE REQUEST', 'a certificate request'],
  ['NEW CERTIFICATE REQUEST', 'a certificate request'],
  ['PKCS7', 'a PKCS#7 bundle'],
  ['CMS', 'a PKCS#7 bundle'],
  ['PUBLIC KEY', 'a public key'],
  ['RSA PUBLIC KEY', 'a public key'],
  ['X509 CRL', 'a revocation list'],
])

/**
 * The rest of a sentence that begins with the name of the file; null: it is nothing that is known.
 * @param wanted `certificate` or `private key`
 * @param labels of the PEM blocks that it has
 */
export function whatElse(
  bytes: Buffer,
  wanted: 'certificate' | 'private key',
  labels: readonly string[],
): string | null {
  const other = labels.map((label) => OTHERS.get(label)).find((name) => name !== undefined)
  if (other !== undefined) return `has ${other} and no ${wanted}, put the ${wanted} there`
  // Four letters of base64 are three bytes; the last of these depends on what follows.
  if (bytes.toString('latin1', 0, BASE64_OF_BEGIN.length) === BASE64_OF_BEGIN) {
    return 'is PEM that was encoded in base64 once more, store it decoded'
  }
  const mark = bytes.length > 1 ? bytes.readUInt16BE(0) : 0
  if (mark === 0xfffe || mark === 0xfeff) return 'is text in UTF-16, store it in UTF-8'
  if (bytes.subarray(0, 4).equals(JAVA_KEY_STORE)) return 'is a Java key store, convert it to PEM'
  const kind = kindOfDer(bytes)
  return kind === null ? null : `is ${kind}, convert it to PEM`
}

function kindOfDer(bytes: Buffer): string | null {
  if (bytes[0] !== SEQUENCE) return null
  const lengthBytes = bytes[1] ?? 0
  const at = lengthBytes < 0x80 ? 2 : 2 + (lengthBytes & 0x7f)
  const tag = bytes[at]
  if (tag === SEQUENCE) return isCertificate(bytes) ? 'a certificate in DER form' : 'in DER form'
  if (tag === INTEGER) return bytes[at + 2] === PKCS12_VERSION ? 'a PKCS#12 file' : 'a private key in DER form'
  const isPkcs7 = tag === OBJECT_IDENTIFIER && bytes.subarray(at + 2, at + 2 + PKCS7_OID.length).equals(PKCS7_OID)
  return isPkcs7 ? 'a PKCS#7 bundle in DER form' : null
}

function isCertificate(bytes: Buffer): boolean {
  const { X509Certificate } = process.getBuiltinModule('node:crypto')
  try {
    return new X509Certificate(bytes).raw.length > 0
  } catch {
    return false
  }
}
