/** The CustomResourceDefinition as YAML: plain, and as a template of the chart. */
import { dump } from 'js-yaml'
import { crd } from '../crd.ts'

const HEADER = 'Generated from operator/api by `npm run generate`. Do not edit.'

const yaml = (value: unknown) => dump(value, { lineWidth: 140, noRefs: true })

/** For `kubectl apply -f`. */
export function crdYaml(): string {
  return `# ${HEADER}\n${yaml(crd())}`
}

/**
 * For Helm: off with `crds.enabled: false`, and kept at an uninstall, because deleting a definition deletes every Ambassador.
 * A template and not the chart's `crds/` folder, which Helm never upgrades.
 */
export function crdTemplate(): string {
  const { metadata, ...rest } = crd()
  const kept = { ...metadata, annotations: { 'helm.sh/resource-policy': 'keep' } }
  const { apiVersion, kind, spec } = rest
  const text = yaml({ apiVersion, kind, metadata: kept, spec }).replaceAll('{{', "{{ '{{' }}")
  return `{{- /* ${HEADER} */ -}}\n{{- if .Values.crds.enabled }}\n${text}{{- end }}\n`
}
