/** Regular expressions that people write: those that mean the same to RE2, which checks them, and to the sidecar, which runs them. */
import { z } from 'zod'
import { MAX_PATTERN_SIZE, patternSize } from '../../common/pattern-counts.ts'
import { rule } from '../../common/schema-kit.ts'

const PUNCTUATION = '[!-/:-@[-`{-~]'
const LITERAL = "[ -#%-',-/0-9:->@-Z_-z~]"
const CLASS_ITEM = `(?:[ -,.-Z_-~]|\\\\${PUNCTUATION})`
const CLASS = `\\[\\^?-?(?:${CLASS_ITEM}(?:-${CLASS_ITEM})?|\\\\[dDwWsS])+-?\\]`
const REPEAT = '(?:[*+?]|\\{[0-9]{1,3}(?:,[0-9]{0,3})?\\})\\??'
const ATOM = `(?:${LITERAL}|\\\\[dDwWsS]|\\\\${PUNCTUATION}|${CLASS}|[)])`

/**
 * What is the same in both languages: printable ASCII, `.`, classes, groups, alternatives, repeats, `\d \w \s \b` and escaped
 * punctuation. Look-around, back references, flags, POSIX classes and named groups are in one of them alone or mean two things.
 * The order of brackets and ranges is left to the compilers, which agree about it.
 */
const GRAMMAR = `^(?:[\\^$|(]|\\(\\?:|\\\\b|${ATOM}(?:${REPEAT})?)*$`

/** RE2 refuses a pattern whose nested counts multiply to more than this. */
const MAX_REPEAT = 1000

const MESSAGE =
  'not a regular expression that can be used: close every bracket, escape punctuation, and use no look-around, back reference, flag or named group'

/** A regular expression that matches a whole value. How large its counts are together CEL cannot tell, so the operator says it in status. */
export function pattern() {
  const schema = patternRule()
  const bounded = schema.refine((text) => !isUsable(text) || patternSize(text) <= MAX_PATTERN_SIZE, {
    error: (issue) => {
      const size = patternSize(issue.input as string)
      return `with its counts written out the pattern has ${size} parts, of at most ${MAX_PATTERN_SIZE}: use smaller counts, or * and +`
    },
  })
  return bounded.meta({ ...schema.meta() })
}

function patternRule() {
  return rule(z.string().min(1).max(256), {
    // The second half is an error for what RE2 does not compile, and the API server then says the same message.
    cel: `self.matches('${GRAMMAR.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}') && (''.matches(self) ? true : true)`,
    holds: isUsable,
    message: MESSAGE,
  })
}

function isUsable(text: string): boolean {
  if (!new RegExp(GRAMMAR).test(text)) return false
  try {
    new RegExp(`^(?:${text})$`, 's')
  } catch {
    return false
  }
  return mostRepeats(text) <= MAX_REPEAT
}

/** The greatest product of counts that stand inside one another. */
function mostRepeats(text: string): number {
  const stack: number[] = []
  let inside = 1
  let before = 1
  for (const [token] of text.matchAll(new RegExp(`\\\\.|${CLASS}|\\{[0-9]+(?:,[0-9]*)?\\}|[\\s\\S]`, 'g'))) {
    if (token === '(') {
      stack.push(inside)
      inside = 1
    } else if (token === ')') {
      before = inside
      inside = Math.max(stack.pop() ?? 1, inside)
    } else if (/^\{\d/.test(token)) {
      const [least = '0', most = ''] = token.slice(1, -1).split(',')
      inside = Math.max(inside, before * Math.max(1, Number(least), Number(most)))
    } else before = 1
  }
  return inside
}
