/** Prints objects as YAML documents that every reader understands alike. */
import { dump } from 'js-yaml'

/** One document with its separator. Strings that YAML 1.1 readers would take for something else are quoted. */
export function printDocument(value: unknown): void {
  console.log(`---\n${yamlOf(value).trimEnd()}`)
}

/** The YAML of a value, without anchors and without folding. */
function yamlOf(value: unknown): string {
  return dump(value, { lineWidth: -1, noRefs: true })
}
