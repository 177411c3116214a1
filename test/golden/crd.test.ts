import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { unknownFields } from '../../cli/unknown-fields.ts'
import { checkObject } from '../../operator/api/check.ts'
import { invalidCases, validCases } from '../helpers/crd-cases.ts'

// How to add a case: put an object into test/golden/crd/valid or invalid and name the file after what it is about. An invalid
// one says at its head what is said of it: `# says: FIELD: MESSAGE` for rules in CEL, and `# offline:` with `# server:` for
// what the API server's own schema check says in its own words. test/integration/operator/crd.test.ts asks a real API server.

describe('checking an Ambassador without an API server', () => {
  for (const { name, object } of validCases()) {
    it(`accepts ${name}`, () => assert.deepEqual(linesFor(object), []))
  }
  for (const { name, object, says, offline } of invalidCases()) {
    it(`refuses ${name} with the expected words`, () => {
      assert.deepEqual(linesFor(object).sort(), [...says, ...offline].sort())
    })
  }
})

function linesFor(object: unknown): string[] {
  return [...checkObject(object), ...unknownFields(object as object)].map(
    ({ field, message }) => `${field}: ${message}`,
  )
}
