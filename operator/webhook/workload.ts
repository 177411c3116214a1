/** Workloads: the annotation of a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob itself, copied into its pod template. */
import { Annotation } from '../../common/names.ts'
import { OPT_OUT } from './inject-annotation.ts'
import { asObject, asString, type JsonObject, objectsOf, own, withKey, withoutKey } from './json.ts'
import { shorten } from './settings-annotations.ts'

/** Kind -> where its pod template is. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
}

export const WORKLOAD_KINDS: readonly string[] = Object.keys(TEMPLATES)

/** The pod template of a workload, or undefined when the kind has none or it is missing. */
export function templateOf(workload: JsonObject): JsonObject | undefined {
  let node: JsonObject | undefined = workload
  const path = Object.hasOwn(TEMPLATES, String(workload['kind'])) ? TEMPLATES[String(workload['kind'])] : undefined
  if (path === undefined) return undefined
  for (const key of path) node = asObject(node?.[key])
  return node
}

/** The workload with another template. */
export function withTemplate(workload: JsonObject, template: JsonObject): JsonObject {
  const place = (node: JsonObject, [key, ...rest]: readonly string[]): JsonObject => {
    if (key === undefined) return template
    return { ...node, [key]: place(asObject(node[key]) ?? {}, rest) }
  }
  return place(workload, TEMPLATES[String(workload['kind'])] ?? [])
}

/** Whether a controller made it: then its owner was asked, and what we wrote would be written over. */
export function hasController(workload: JsonObject): boolean {
  return objectsOf(asObject(workload['metadata'])?.['ownerReferences']).some((owner) => owner['controller'] === true)
}

export interface Copied {
  readonly workload: JsonObject
  readonly warnings: readonly string[]
}

/**
 * What the marker on the template remembers: the value that we copied, and the template's own value that it replaced, which
 * happens for "false" alone. As text: `payments`, or `false; was payments`.
 */
interface Marker {
  readonly value: string
  readonly was: string | undefined
}

/**
 * Copies the annotation of a workload into its template, or takes a copy of ours out again. A template's own annotation is
 * a person's: it wins over the workload's, with a warning; only "false" wins over everything.
 */
export function copyAnnotation(workload: JsonObject): Copied {
  const template = templateOf(workload)
  if (template === undefined) return { workload, warnings: [] }
  const wanted = annotationOf(workload)
  const present = annotationOf(template)
  const marker = readMarker(template)
  const isCopy = marker !== undefined && marker.value === present
  if (wanted === undefined) return { workload: withdraw(workload, template, marker, isCopy), warnings: [] }
  if (present === undefined || isCopy) {
    const was = wanted.trim() === OPT_OUT ? marker?.was : undefined
    // The value that "false" had replaced comes back when something else is wanted now.
    if (marker?.was !== undefined && was === undefined) return copyAnnotation(withdrawn(workload, template, marker))
    return { workload: written(workload, template, { value: wanted, was }), warnings: [] }
  }
  const own = marker === undefined ? workload : withTemplate(workload, annotate(template, { marker: null }))
  if (present === wanted) return { workload: own, warnings: [] }
  if (wanted.trim() === OPT_OUT) {
    return { workload: written(workload, template, { value: wanted, was: present }), warnings: [] }
  }
  const text = `${Annotation.inject}: the pod template says "${shorten(present)}", which wins over "${shorten(wanted)}" on the ${String(workload['kind'])}; remove one of the two`
  return { workload: own, warnings: [text] }
}

/** Takes a copy of ours out of the template, whatever the workload's own annotation says. */
export function removeCopy(workload: JsonObject): JsonObject {
  const template = templateOf(workload)
  const marker = template === undefined ? undefined : readMarker(template)
  if (template === undefined || marker === undefined) return workload
  return withdraw(workload, template, marker, marker.value === annotationOf(template))
}

function withdraw(workload: JsonObject, template: JsonObject, marker: Marker | undefined, isCopy: boolean): JsonObject {
  if (marker === undefined) return workload
  // Edited since: it is a person's now, only the marker goes.
  return isCopy ? withdrawn(workload, template, marker) : withTemplate(workload, annotate(template, { marker: null }))
}

function withdrawn(workload: JsonObject, template: JsonObject, marker: Marker): JsonObject {
  return withTemplate(workload, annotate(template, { inject: marker.was ?? null, marker: null }))
}

function written(workload: JsonObject, template: JsonObject, { value, was }: Marker): JsonObject {
  const marker = was === undefined ? value : `${value}; was ${was}`
  if (annotationOf(template) === value && annotationOf(template, Annotation.copiedFromWorkload) === marker)
    return workload
  return withTemplate(workload, annotate(template, { inject: value, marker }))
}

function annotationOf(object: JsonObject, key: string = Annotation.inject): string | undefined {
  return asString(own(asObject(asObject(object['metadata'])?.['annotations']), key))
}

function readMarker(template: JsonObject): Marker | undefined {
  const text = annotationOf(template, Annotation.copiedFromWorkload)
  if (text === undefined) return undefined
  const at = text.indexOf('; was ')
  return at < 0 ? { value: text, was: undefined } : { value: text.slice(0, at), was: text.slice(at + '; was '.length) }
}

/** Writes or (null) removes our two annotations of a template; a map that gets empty by it is removed. */
function annotate(template: JsonObject, change: { inject?: string | null; marker: string | null }): JsonObject {
  const metadata = asObject(template['metadata']) ?? {}
  let annotations = asObject(metadata['annotations']) ?? {}
  const set = (key: string, value: string | null | undefined): void => {
    if (value === null) annotations = withoutKey(annotations, key)
    else if (value !== undefined) annotations = withKey(annotations, key, value)
  }
  set(Annotation.inject, change.inject)
  set(Annotation.copiedFromWorkload, change.marker)
  return withOrWithout(template, 'metadata', withOrWithout(metadata, 'annotations', annotations))
}

function withOrWithout(parent: JsonObject, key: string, value: JsonObject): JsonObject {
  return Object.keys(value).length === 0 ? withoutKey(parent, key) : { ...parent, [key]: value }
}
