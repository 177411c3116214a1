import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { readSource, type SourceFile, sourceFiles } from '../helpers/source.ts'

const ROOT = join(import.meta.dirname, '../..')

interface Room {
  /** Without a slash at the end. */
  readonly path: string
  /** The folder's own files, not those of rooms below. */
  readonly isFilesOnly: boolean
  /** Paths of rooms, of what contains them, or of single files. */
  readonly mayImport: readonly string[]
}

/** The table of docs/architecture.md: it is the rule, not a picture of it. */
const readRooms = (markdown: string): Room[] => {
  const table = markdown.slice(markdown.indexOf('## Rooms'), markdown.indexOf('## Contracts'))
  return table
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .filter(([, room]) => room?.includes('`'))
    .map(([, room = '', , mayImport = '']) => {
      const path = quoted(room)[0] ?? ''
      assert.match(path, /\/$/, `docs/architecture.md: '${room}' names no folder`)
      const allowed = quoted(mayImport)
      const isWords = ['nothing', 'everything'].includes(mayImport)
      assert.ok(isWords || allowed.length > 0, `docs/architecture.md: '${mayImport}' lists no room`)
      return {
        path: path.slice(0, -1),
        isFilesOnly: room.startsWith('files in'),
        mayImport: mayImport === 'everything' ? [''] : allowed,
      }
    })
}

const quoted = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '')

const isBelow = (path: string, folder: string): boolean => folder === '' || path.startsWith(`${folder}/`)

const isIn = (path: string, places: readonly string[]): boolean =>
  places.some((place) => path === place || isBelow(path, place))

const roomOf = (path: string, rooms: readonly Room[]): Room | undefined =>
  rooms
    .filter((room) => (room.isFilesOnly ? dirname(path) === room.path : isBelow(path, room.path)))
    .sort((a, b) => b.path.length - a.path.length)[0]

/** A sentence for each import that the table does not allow. */
const violations = (files: readonly SourceFile[], rooms: readonly Room[]): string[] =>
  files.flatMap((file) => {
    const room = roomOf(file.path, rooms)
    if (room === undefined) return [`${file.path}: its folder has no row in docs/architecture.md`]
    return file.imports
      .filter((target) => roomOf(target, rooms) !== room && !isIn(target, room.mayImport))
      .map((target) => `${file.path}: imports ${target}, which ${room.path} may not`)
  })

const ROOMS = readRooms(readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8'))
const FOLDERS = ['common', 'operator', 'proxy', 'cli', 'build', 'test']
// This file holds samples of imports that are not there.
const FILES = sourceFiles(FOLDERS).filter(({ path }) => path !== 'test/unit/imports.test.ts')

describe('imports', () => {
  it('go where docs/architecture.md allows', () => {
    assert.deepEqual(violations(FILES, ROOMS), [])
  })

  it('would be refused against the direction', () => {
    const file = (path: string, specifier: string) => readSource(path, `import { x } from '${specifier}'`)
    assert.deepEqual(
      violations(
        [
          file('proxy/config/a.ts', '../../operator/api/ambassador.ts'),
          file('operator/main.ts', '../proxy/app.ts'),
          file('common/names.ts', '../operator/main.ts'),
          file('operator/render/a.ts', '../kube/client.ts'),
          file('proxy/somewhere/new.ts', '../app.ts'),
          file('operator/controller/a.ts', '../kube/client.ts'),
          file('proxy/app.ts', './config/load.ts'),
        ],
        ROOMS,
      ),
      [
        'proxy/config/a.ts: imports operator/api/ambassador.ts, which proxy/config may not',
        'operator/main.ts: imports proxy/app.ts, which operator may not',
        'common/names.ts: imports operator/main.ts, which common may not',
        'operator/render/a.ts: imports operator/kube/client.ts, which operator/render may not',
        'proxy/somewhere/new.ts: its folder has no row in docs/architecture.md',
      ],
    )
  })
})

/** Where a package may be imported at all; a folder or a file. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  '@kubernetes/client-node': ['operator'],
  '@aws-sdk/credential-providers': ['proxy/auth'], // by dynamic import alone
  '@aws-sdk/rds-signer': ['proxy/auth'], // by dynamic import alone
  '@azure/identity': ['proxy/auth'], // by dynamic import alone
  'dns-packet': ['proxy'],
  'google-auth-library': ['proxy/auth'], // by dynamic import alone
  express: ['operator'],
  'js-yaml': ['operator', 'cli'],
  pino: ['common'],
  'prom-client': ['operator', 'cli'],
  rolldown: ['build'],
  zod: ['common', 'operator'], // the sidecar checks without it: it would cost each 5 MB
}

/** What is not written in a place, and why. A folder or a file may be named. */
const BANS: readonly {
  readonly name: string
  readonly what: RegExp
  readonly where: readonly string[]
  readonly but: readonly string[]
  readonly why: string
}[] = [
  {
    name: 'console',
    what: /\bconsole\./,
    where: ['common', 'operator', 'proxy'],
    but: ['operator/api/generate.ts'], // a command for people
    why: 'a process logs JSON lines through common/log.ts',
  },
  {
    name: 'process.env',
    what: /\bprocess\.env\b/,
    where: ['common', 'operator', 'proxy'],
    but: [
      'operator/main.ts',
      'operator/settings.ts',
      'proxy/main.ts',
      'proxy/config/env.ts',
      'proxy/config/refs.ts',
      'operator/kube/connection.ts',
    ],
    why: 'settings are read once, at the border, and passed on',
  },
  {
    name: 'setTimeout',
    what: /\bset(Timeout|Interval)\(/,
    where: ['proxy/protocol', 'proxy/policy', 'proxy/listener', 'proxy/upstream'],
    // Off the request path: looking for endpoints, and requests that wait for the first of them.
    but: ['proxy/upstream/dns', 'proxy/upstream/discovery', 'proxy/upstream/holds.ts'],
    why: 'a timer on the request path is one of proxy/runtime/timers.ts, which costs a list operation',
  },
  {
    name: 'Buffer.concat',
    what: /\bBuffer\.concat\(/,
    where: ['proxy/protocol'],
    // What comes ahead of its turn, in a read or two until the pause takes effect; the head and body of an answer of our own; the
    // login of PostgreSQL, once for each connection and bounded.
    but: [
      'proxy/protocol/http1/respond.ts',
      'proxy/protocol/http1/session.ts',
      'proxy/protocol/tcp/session.ts',
      'proxy/protocol/postgres',
    ],
    why: 'bytes are kept where they are read; a copy per piece is quadratic',
  },
]

describe('source', () => {
  for (const { name, what, where, but, why } of BANS) {
    it(`has no ${name} in ${where.join(', ')}: ${why}`, () => {
      const found = FILES.filter(({ path }) => isIn(path, where) && !isIn(path, but)).flatMap(({ path, lines }) =>
        lines.flatMap((line, index) => (what.test(line) ? [`${path}:${index + 1}`] : [])),
      )
      assert.deepEqual(found, [])
    })
  }

  it('imports a package only where it belongs', () => {
    const found = FILES.filter(({ path }) => !isBelow(path, 'test')).flatMap(({ path, packages }) =>
      packages
        .filter((name) => !name.startsWith('node:') && !isIn(path, PACKAGES[name] ?? []))
        .map((name) => `${path}: ${name}`),
    )
    assert.deepEqual(found, [])
  })
})

describe('readSource', () => {
  it('finds every form of import and no comment', () => {
    const file = readSource(
      'proxy/config/a.ts',
      [
        "import { a } from './b.ts'",
        'import {',
        '  c,',
        "} from '../d.ts'",
        "export type { E } from '../../common/e.ts'",
        "import './effects.ts'",
        "const f = await import('./f.ts')",
        "// import { g } from './g.ts'",
        "/** import { h } from './h.ts' */",
        "const url = 'http://x' // console.log",
        "import { z } from 'zod'",
        "import type { K } from '@kubernetes/client-node/dist/x.js'",
        "import { join } from 'node:path'",
      ].join('\n'),
    )
    assert.deepEqual(file.imports, [
      'proxy/config/b.ts',
      'proxy/d.ts',
      'common/e.ts',
      'proxy/config/effects.ts',
      'proxy/config/f.ts',
    ])
    assert.deepEqual(file.packages, ['zod', '@kubernetes/client-node', 'node:path'])
    assert.equal(file.lines[9]?.trimEnd(), "const url = 'http://x'")
  })
})
