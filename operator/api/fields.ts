/** Names and values of header fields, wherever a spec writes them. */
import { z } from 'zod'
import { rule } from '../../common/schema-kit.ts'

/** Fields that frame a message or belong to one connection; to write them would break messages. */
const FRAMING_FIELDS =
  'connection|content-length|expect|host|http2-settings|keep-alive|proxy-authenticate|proxy-connection|te|trailer|transfer-encoding|upgrade'
const TOKEN_PATTERN = '^[-!#$%&*+.^_`|~0-9A-Za-z]+$'

/** The name of a header field that is looked at. */
export function fieldName() {
  return rule(z.string().max(128), {
    cel: `self.matches('${TOKEN_PATTERN}')`,
    holds: (text) => new RegExp(TOKEN_PATTERN).test(text),
    message: 'not the name of a header field: use letters, digits and dashes',
    says: {
      cel: `"'" + self + "' is not the name of a header field: use letters, digits and dashes"`,
      text: (text) => `'${text}' is not the name of a header field: use letters, digits and dashes`,
    },
  })
}

/**
 * The name of a header field that is written.
 * @param problem what cannot be done with the fields that the proxy needs for itself, such as `a credential cannot be in it`
 * @param others more names that are refused, separated by `|`
 */
export function writtenFieldName(problem: string, others = '') {
  const names = others === '' ? FRAMING_FIELDS : `${FRAMING_FIELDS}|${others}`
  return rule(fieldName(), {
    cel: `!self.matches('^(?i:${names})$')`,
    holds: (text) => !new RegExp(`^(?:${names})$`, 'i').test(text),
    message: `this header belongs to the connection or frames the message, ${problem}: use another one`,
    says: {
      cel: `"'" + self + "' belongs to the connection or frames the message, ${problem}: use another header"`,
      text: (text) => `'${text}' belongs to the connection or frames the message, ${problem}: use another header`,
    },
  })
}

/** One line of text as the value of a header field (RFC 9110 section 5.5). A line break would begin another field. */
export function fieldValue() {
  return rule(z.string().max(1024), {
    cel: `!self.matches('[\\\\x00-\\\\x1f\\\\x7f]') && !self.startsWith(' ') && !self.endsWith(' ')`,
    holds: (text) => !/[\x00-\x1f\x7f]/.test(text) && !text.startsWith(' ') && !text.endsWith(' '),
    message: 'has a line break or another control character, or a space at an end: write one line of text',
  })
}
