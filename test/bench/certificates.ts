/** A CA and a certificate of it, made by openssl for one run. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

/** Writes the files into a folder and returns their paths. */
export const makeAuthority = async (
  directory: string,
  name: string,
): Promise<{ readonly caFile: string; readonly certificateFile: string; readonly keyFile: string }> => {
  const file = (suffix: string): string => join(directory, suffix)
  const [caFile, caKey, certificateFile, keyFile, request, extensions] = [
    file('ca.pem'),
    file('ca.key'),
    file('server.pem'),
    file('server.key'),
    file('server.csr'),
    file('server.ext'),
  ]
  await run('openssl', [
    'req',
    '-x509',
    ...KEY,
    '-keyout',
    caKey,
    '-out',
    caFile,
    '-days',
    '2',
    '-subj',
    '/CN=bench CA',
  ])
  await run('openssl', ['req', '-new', ...KEY, '-keyout', keyFile, '-out', request, '-subj', `/CN=${name}`])
  writeFileSync(extensions, `subjectAltName=DNS:${name}\n`)
  await run('openssl', [
    'x509',
    '-req',
    '-in',
    request,
    '-CA',
    caFile,
    '-CAkey',
    caKey,
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    extensions,
    '-out',
    certificateFile,
  ])
  return { caFile, certificateFile, keyFile }
}
