import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { readRef, readRefText } from '../../../../proxy/config/refs.ts'
import { Volumes } from '../../../helpers/volume.ts'

const volumes = new Volumes()
after(() => volumes.remove())
const secret = (name: string, key: string) => ({ kind: 'secret', name, key }) as const

describe('readRef', () => {
  it('finds the key of a mounted Secret', () => {
    volumes.secret('found', { token: 'abc' })
    assert.deepEqual(readRef(secret('found', 'token'), volumes.dirs), { state: 'Found', bytes: Buffer.from('abc') })
  })

  it('finds the key of a mounted ConfigMap, and keeps the two kinds apart', () => {
    volumes.configMap('ca', { 'ca.crt': 'pem\nmore\n' })
    const ref = { kind: 'configMap', name: 'ca', key: 'ca.crt' } as const
    assert.deepEqual(readRef(ref, volumes.dirs), { state: 'Found', bytes: Buffer.from('pem\nmore\n') })
    assert.equal(readRef(secret('ca', 'ca.crt'), volumes.dirs).state, 'NotMounted')
  })

  it('says that a Secret without a directory needs a restart of the pod', () => {
    assert.deepEqual(readRef(secret('later', 'token'), volumes.dirs), {
      state: 'NotMounted',
      message: "Secret 'later' is not mounted in this pod, restart the pod to mount it",
    })
  })

  it('tells an absent Secret from an absent key', () => {
    volumes.secret('empty', {})
    volumes.secret('other', { tokn: 'x' })
    assert.deepEqual(readRef(secret('empty', 'token'), volumes.dirs), {
      state: 'Missing',
      message: "Secret 'empty' does not exist or is empty, create it with the key 'token'",
    })
    assert.deepEqual(readRef(secret('other', 'token'), volumes.dirs), {
      state: 'Missing',
      message: "Secret 'other' has no key 'token', add it",
    })
  })

  it('never leaves its directory', () => {
    volumes.secret('a', { token: 'x' })
    for (const ref of [
      secret('../secrets/a', 'token'),
      secret('a', '../a/token'),
      secret('..', 'a'),
      secret('a', '.'),
    ]) {
      const value = readRef(ref, volumes.dirs)
      assert.equal(value.state, 'Invalid')
      assert.match((value as { message: string }).message, /a name has no slash, correct it$/)
    }
  })

  it('refuses what is larger than a Secret can be, and what is not a file', () => {
    volumes.secret('big', { token: Buffer.alloc(1024 * 1024 + 1, 'x') })
    assert.deepEqual(readRef(secret('big', 'token'), volumes.dirs), {
      state: 'Invalid',
      message: "Secret 'big', key 'token' has 1048577 bytes, use at most 1048576",
    })
    assert.deepEqual(readRef({ kind: 'file', path: volumes.root }, volumes.dirs), {
      state: 'Invalid',
      message: `file '${volumes.root}' cannot be read (EISDIR), make it a readable file`,
    })
  })

  it('reads files and variables', () => {
    const path = join(volumes.root, 'token')
    writeFileSync(path, 'from a file')
    assert.deepEqual(readRef({ kind: 'file', path }, volumes.dirs), {
      state: 'Found',
      bytes: Buffer.from('from a file'),
    })
    assert.deepEqual(readRef({ kind: 'file', path: `${path}.x` }, volumes.dirs), {
      state: 'Missing',
      message: `file '${path}.x' does not exist, create it`,
    })
    process.env['REFS_TEST_TOKEN'] = 'from a variable'
    const found = readRef({ kind: 'env', name: 'REFS_TEST_TOKEN' }, volumes.dirs)
    assert.deepEqual(found, { state: 'Found', bytes: Buffer.from('from a variable') })
    assert.deepEqual(readRef({ kind: 'env', name: 'REFS_TEST_NONE' }, volumes.dirs), {
      state: 'Missing',
      message: 'variable REFS_TEST_NONE is not set, set it',
    })
  })

  it('says that a file may not be read', () => {
    const path = join(volumes.root, 'private')
    writeFileSync(path, 'x')
    chmodSync(path, 0)
    // Root may read everything; as nobody it may not.
    const isRoot = process.geteuid?.() === 0
    if (isRoot) process.seteuid?.(65534)
    try {
      assert.deepEqual(readRef({ kind: 'file', path }, volumes.dirs), {
        state: 'Invalid',
        message: `file '${path}' cannot be read (EACCES), make it a readable file`,
      })
    } finally {
      if (isRoot) process.seteuid?.(0)
    }
  })
})

describe('readRefText', () => {
  const read = (value: string | Buffer) => {
    volumes.secret('text', { token: value })
    return readRefText(secret('text', 'token'), volumes.dirs)
  }

  it('cuts off one trailing line break of either kind', () => {
    assert.deepEqual(read('abc\n'), { state: 'Found', text: 'abc' })
    assert.deepEqual(read('abc\r\n'), { state: 'Found', text: 'abc' })
    assert.deepEqual(read('abc'), { state: 'Found', text: 'abc' })
    assert.deepEqual(read('größe'), { state: 'Found', text: 'größe' })
  })

  const invalid: readonly (readonly [string, string | Buffer, string])[] = [
    ['a line break inside', 'a\nb', 'has a line break inside, put one line there'],
    ['two line breaks at the end', 'a\n\n', 'has a line break inside, put one line there'],
    ['a carriage return', 'a\rb', 'has a line break inside, put one line there'],
    ['a header smuggled in', 'a\r\nX-Evil: 1', 'has a line break inside, put one line there'],
    ['nothing', '', 'is empty, put the value there'],
    ['only a line break', '\n', 'is empty, put the value there'],
    ['a NUL', 'a\0b', 'has a control character, put plain text there'],
    ['a space at the end', 'a ', 'begins or ends with a space, remove it'],
    ['bytes that are not UTF-8', Buffer.from([0x61, 0xff]), 'is not UTF-8 text, put plain text there'],
  ]
  for (const [what, value, message] of invalid) {
    it(`refuses ${what}, and does not repeat the value`, () => {
      assert.deepEqual(read(value), { state: 'Invalid', message: `Secret 'text', key 'token' ${message}` })
    })
  }
})
