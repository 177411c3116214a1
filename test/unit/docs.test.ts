import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { load } from 'js-yaml'
import { Annotation, PRODUCT_VERSION } from '../../common/names.ts'
import { REASONS } from '../../common/reasons.ts'
import { checkObject } from '../../operator/api/check.ts'
import { CONDITION_TYPES } from '../../operator/api/conditions.ts'
import { DENIALS, SKIPS } from '../../operator/webhook/reasons.ts'
import { STAGES } from '../runner/stages.ts'

const ROOT = join(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

const PAGES = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...['docs', 'operator', 'proxy', 'common', 'cli', 'charts', 'crds', 'test', 'build', 'examples'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.md'))
      .map((name) => join(folder, name)),
  ),
]

/** As the anchors of a rendered page are made. */
const anchorsOf = (markdown: string): string[] =>
  [...markdown.matchAll(/^#+ (.*)$/gm)].map((match) =>
    (match[1] ?? '')
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )

/** First cells of the rows of a table that hold code. */
const firstCells = (markdown: string): string[] =>
  [...markdown.matchAll(/^\| (`[^|]*?) \|/gm)].flatMap((match) =>
    [...(match[1] ?? '').matchAll(/`([^`]+)`/g)].map((cell) => cell[1] ?? ''),
  )

describe('the documentation', () => {
  it('links to files and headings that exist', () => {
    const broken = PAGES.flatMap((page) =>
      [...read(page).matchAll(/\]\(([^)#\s]*)(?:#([^)\s]*))?\)/g)].flatMap(([, path = '', anchor]) => {
        if (/^[a-z]+:/.test(path)) return []
        const target = path === '' ? page : join(dirname(page), path)
        if (!existsSync(join(ROOT, target))) return [`${page}: ${path}`]
        if (anchor === undefined || anchorsOf(read(target)).includes(anchor)) return []
        return [`${page}: ${path}#${anchor}`]
      }),
    )
    assert.deepEqual(broken, [])
  })

  it('shows Ambassadors that are accepted', () => {
    const shown = PAGES.flatMap((page) =>
      [...read(page).matchAll(/^```yaml\n([\s\S]*?)^```/gm)]
        .map((match) => load(match[1] ?? '') as { kind?: string })
        .filter((object) => object.kind === 'Ambassador')
        .map((object) => ({ page, problems: checkObject(object) })),
    )
    assert.ok(shown.length > 0)
    assert.deepEqual(
      shown.filter(({ problems }) => problems.length > 0),
      [],
    )
  })

  it('names only npm scripts that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const unknown = PAGES.flatMap((page) =>
      [...read(page).matchAll(/\bnpm (?:run (?:-s |--silent )?([a-z]+)|(test)\b)/g)]
        .map((match) => match[1] ?? match[2] ?? '')
        .filter((script) => !(script in scripts))
        .map((script) => `${page}: ${script}`),
    )
    assert.deepEqual(unknown, [])
  })

  it('tells of every reason code what to do, with the status that it has', () => {
    const rows = [...read('docs/troubleshooting.md').matchAll(/^\| `([a-z_]+)` \| (\d+|–) \|/gm)]
    const documented = Object.fromEntries(rows.map(([, code, status]) => [code, status === '–' ? 0 : Number(status)]))
    assert.deepEqual(
      documented,
      Object.fromEntries(Object.entries(REASONS).map(([code, { status }]) => [code, status])),
    )
  })

  it('tells of every condition which question it answers', () => {
    const table = read('docs/status.md').slice(read('docs/status.md').indexOf('## Conditions'))
    assert.deepEqual(
      firstCells(table).filter((cell) => /^[A-Z]/.test(cell)),
      CONDITION_TYPES,
    )
  })

  it('tells of every annotation, refusal and skip', () => {
    const page = read('docs/annotations.md')
    const words = [...Object.values(Annotation), ...Object.keys(DENIALS), ...Object.keys(SKIPS)]
    assert.deepEqual(
      words.filter((word) => !page.includes(word)),
      [],
    )
  })

  it('lists every value of the chart', () => {
    const isTree = (value: unknown): value is Record<string, unknown> =>
      value !== null && typeof value === 'object' && !Array.isArray(value) && Object.keys(value).length > 0
    const paths = (value: unknown, path: string): string[] =>
      isTree(value) && !path.endsWith('resources')
        ? Object.entries(value).flatMap(([key, child]) => paths(child, path === '' ? key : `${path}.${key}`))
        : [path]
    let parent = ''
    // `.tag` in a cell stands for the same parent as the value before it.
    const listed = firstCells(read('docs/install.md')).map((cell) => {
      if (!cell.startsWith('.')) parent = cell.slice(0, cell.lastIndexOf('.'))
      return cell.startsWith('.') ? `${parent}${cell}` : cell
    })
    assert.deepEqual(paths(load(read('charts/ambassador/values.yaml')), '').sort(), listed.sort())
  })

  it('lists the stages of the tests', () => {
    const page = read('CONTRIBUTING.md')
    assert.ok(page.includes(STAGES.map(({ name }) => name).join(', ')))
  })

  it('has a changelog that knows this version, or what comes next', () => {
    assert.match(
      read('CHANGELOG.md'),
      new RegExp(`^## \\[(Unreleased|${PRODUCT_VERSION.replaceAll('.', '\\.')})\\]`, 'm'),
    )
  })

  it('opens every top folder with what it is for and what it may import', () => {
    for (const folder of ['operator', 'proxy', 'common', 'cli', 'charts', 'crds', 'test', 'build', 'examples'])
      assert.ok(existsSync(join(ROOT, folder, 'README.md')), folder)
    for (const folder of ['operator', 'proxy', 'common', 'cli', 'crds', 'test', 'build'])
      assert.match(read(join(folder, 'README.md')), /import/i, folder)
  })
})
