/** `npm run generate [-- --check]`: writes what is made from the schema, or fails when a file is not what it would write. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PROXY_CONFIG_SCHEMA_PATH, proxyConfigSchemaText } from '../../common/proxy-config-schema.ts'
import { crdTemplate, crdYaml } from './generate/crd-yaml.ts'
import { editorSchema } from './generate/editor-schema.ts'
import { reference } from './generate/reference.ts'

const ROOT = join(import.meta.dirname, '../..')

/** Every generated file, by its path in the repository. */
export function generated(): ReadonlyMap<string, string> {
  return new Map([
    ['crds/ambassadors.ambassador.dev.yaml', crdYaml()],
    ['charts/ambassador/templates/crd.yaml', crdTemplate()],
    ['docs/reference/ambassador.md', reference()],
    ['docs/reference/ambassador.schema.json', editorSchema()],
    [PROXY_CONFIG_SCHEMA_PATH, proxyConfigSchemaText()],
  ])
}

/** Paths of the files that are not what the generator writes. */
export function outdated(root: string): string[] {
  return [...generated()].filter(([path, text]) => contentOf(join(root, path)) !== text).map(([path]) => path)
}

function contentOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function main(args: readonly string[]): number {
  const paths = outdated(ROOT)
  if (args.includes('--check')) {
    for (const path of paths) console.error(`${path}: is not what the schema says, run npm run generate`)
    return paths.length > 0 ? 1 : 0
  }
  const files = generated()
  for (const path of paths) {
    const file = join(ROOT, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, files.get(path)!)
    console.log(`wrote ${path}`)
  }
  return 0
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2))
