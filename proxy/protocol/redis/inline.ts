/** Splits a command that was typed as a line, as redis-server does it: words, and quotes with escapes. */

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', b: '\b', a: '\x07' }

/** The words of a line (latin1); null when its quotes are not balanced. */
export function splitInline(line: string): Buffer[] | null {
  const words: Buffer[] = []
  let at = 0
  for (;;) {
    while (at < line.length && isSpace(line[at]!)) at++
    if (at >= line.length) return words
    let word = ''
    let quote = ''
    for (; ; at++) {
      const letter = line[at]
      if (letter === undefined) {
        if (quote !== '') return null
        break
      }
      if (quote === '') {
        if (isSpace(letter)) break
        if (letter === '"' || letter === "'") quote = letter
        else word += letter
        continue
      }
      if (letter === quote) {
        // A closing quote ends the word.
        const next = line[at + 1]
        if (next !== undefined && !isSpace(next)) return null
        at++
        break
      }
      if (letter !== '\\') word += letter
      else if (quote === "'") {
        if (line[at + 1] === "'") {
          word += "'"
          at++
        } else word += letter
      } else {
        const hex = /^x([0-9a-fA-F]{2})/.exec(line.slice(at + 1, at + 4))
        const next = line[at + 1]
        if (hex !== null) {
          word += String.fromCharCode(Number.parseInt(hex[1]!, 16))
          at += 3
        } else if (next === undefined) return null
        else {
          word += ESCAPES[next] ?? next
          at++
        }
      }
    }
    words.push(Buffer.from(word, 'latin1'))
  }
}

function isSpace(letter: string): boolean {
  return letter === ' ' || letter === '\t' || letter === '\r' || letter === '\n' || letter === '\v' || letter === '\f'
}
