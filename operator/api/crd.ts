/** The CustomResourceDefinition of Ambassador. */
import { GROUP, KIND, PLURAL, VERSION } from '../../common/names.ts'
import { doc } from '../../common/schema-kit.ts'
import { ambassadorSpec } from './ambassador.ts'
import { ambassadorStatus } from './status.ts'
import { type Structural, structural } from './structural.ts'

interface Column {
  readonly name: string
  readonly type: 'string' | 'integer' | 'date'
  readonly jsonPath: string
  readonly description: string
  /** Above 0: only with `-o wide`. */
  readonly priority?: number
}

const ready = (field: string) => `.status.conditions[?(@.type=="Ready")].${field}`

/** Columns of `kubectl get amb`. A column is one path, so texts of more than one value are in status.summary. */
const COLUMNS: readonly Column[] = [
  { name: 'Protocol', type: 'string', jsonPath: '.spec.protocol', description: 'What the application speaks' },
  { name: 'Port', type: 'integer', jsonPath: '.spec.listen.port', description: 'Port on localhost of the pod' },
  { name: 'Ready', type: 'string', jsonPath: ready('status'), description: 'Whether an application can use it now' },
  { name: 'Reason', type: 'string', jsonPath: ready('reason'), description: 'Why it is ready or not' },
  { name: 'Pods', type: 'string', jsonPath: '.status.summary.pods', description: 'Ready and injected pods' },
  {
    name: 'Current',
    type: 'integer',
    jsonPath: '.status.pods.current',
    description: 'Pods that run the newest configuration',
  },
  { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since it was created' },
  {
    name: 'Upstream',
    type: 'string',
    jsonPath: '.status.summary.upstream',
    description: 'Where the traffic goes',
    priority: 1,
  },
  {
    name: 'Version',
    type: 'string',
    jsonPath: '.status.summary.version',
    description: 'Version of the sidecars',
    priority: 1,
  },
]

/** The schema of the whole object, as structural OpenAPI. */
export function schema(): Structural {
  const spec = structural(doc(ambassadorSpec, 'What a person wants: one dependency of an application.'), 'spec')
  const status = structural(doc(ambassadorStatus, 'What the operator sees; written by it alone.'), 'status')
  return {
    description:
      'An Ambassador is one dependency of an application: where it listens inside the pod, where it really goes, and which connectivity concerns it takes off the application.',
    type: 'object',
    required: ['spec'],
    properties: {
      apiVersion: { description: `Version of this schema, ${GROUP}/${VERSION}.`, type: 'string' },
      kind: { description: `Always ${KIND}.`, type: 'string' },
      metadata: { type: 'object' },
      spec,
      status,
    },
  }
}

/** The CustomResourceDefinition as it is applied. */
export function crd() {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${PLURAL}.${GROUP}`, labels: { 'app.kubernetes.io/name': 'ambassador' } },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: {
        kind: KIND,
        listKind: `${KIND}List`,
        plural: PLURAL,
        singular: 'ambassador',
        shortNames: ['amb'],
        categories: ['all'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: COLUMNS,
          schema: { openAPIV3Schema: schema() },
        },
      ],
    },
  }
}
