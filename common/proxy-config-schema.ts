/** ProxyConfig as JSON schema, generated, so that the proxy checks a config against the one source without the library that it is written in. */
import { z } from 'zod'
import { proxyConfig } from './proxy-config.ts'

/** Where the generated file is, for whoever writes it or looks for drift. */
export const PROXY_CONFIG_SCHEMA_PATH = 'common/proxy-config.schema.json'

/** The text of common/proxy-config.schema.json. */
export function proxyConfigSchemaText(): string {
  const schema = z.toJSONSchema(proxyConfig, { io: 'input', reused: 'ref' })
  const $comment = 'Generated from common/proxy-config.ts by `npm run generate`. Do not edit.'
  return `${JSON.stringify({ $comment, ...schema }, null, 2)}\n`
}
