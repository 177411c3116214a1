import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { projectService, projectSlice } from '../../../../operator/controller/services.ts'
import type { KubeObject } from '../../../../operator/kube/objects.ts'
import {
  MAX_SERVICE_ENDPOINTS,
  resolveService,
  type ServiceEndpoint,
  type ServiceState,
  type SliceState,
} from '../../../../operator/render/services.ts'

interface Endpoint {
  readonly addresses: readonly string[]
  readonly zone?: string
  readonly hints?: { readonly forZones?: readonly { readonly name: string }[] } | null
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean }
}

const metadata = { name: 'orders', namespace: 'shop', uid: 'u', resourceVersion: '1' }

function service(spec: object = {}, annotations: Readonly<Record<string, string>> = {}): ServiceState {
  const ports = [
    { name: 'http', port: 80, targetPort: 8080 },
    { name: 'dns', port: 53, protocol: 'UDP' },
  ]
  return projectService({
    metadata: { ...metadata, annotations },
    spec: { ports, ipFamilies: ['IPv4'], ...spec },
  } as KubeObject)
}

function slice(endpoints: readonly Endpoint[], over: object = {}): SliceState {
  return projectSlice({
    metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'orders' } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints,
    ...over,
  } as KubeObject)!
}

const ready = (ip: string): Endpoint => ({ addresses: [ip], conditions: { ready: true, serving: true } })
const ending = (ip: string): Endpoint => ({
  addresses: [ip],
  conditions: { ready: false, serving: true, terminating: true },
})
const failing = (ip: string): Endpoint => ({ addresses: [ip], conditions: { ready: false, serving: false } })

interface Asked {
  readonly port?: number | string
  readonly asker?: string
  readonly service?: ServiceState | undefined
  readonly slices?: readonly SliceState[]
  readonly lastGood?: readonly ServiceEndpoint[]
}

/** `ip:port` of what was found, and the problem. */
function resolve(asked: Asked): { at: readonly string[]; problem: string | null } {
  const { port = 80, asker = 'shop', slices = [], lastGood = [] } = asked
  const found = resolveService(
    { namespace: 'shop', name: 'orders', port },
    { asker, slices, lastGood, service: 'service' in asked ? asked.service : service() },
  )
  if (found.kind === 'name') return { at: [`${found.hostname}:${found.port}`], problem: null }
  return {
    at: found.endpoints.map(({ ip, port: number }) => `${ip}:${number}`),
    problem: found.problem?.message ?? null,
  }
}

describe('the endpoints of a Service', () => {
  it('are its ready pods with the port of the pods, by number and by name of the port of the Service', () => {
    const slices = [slice([ready('10.0.0.2'), failing('10.0.0.3')]), slice([ready('10.0.0.1')])]
    for (const port of [80, 'http']) {
      assert.deepEqual(resolve({ port, slices }), { at: ['10.0.0.1:8080', '10.0.0.2:8080'], problem: null })
    }
  })

  it('are ready when nothing is said of them, and carry their zone', () => {
    const slices = [slice([{ addresses: ['10.0.0.1'], zone: 'a' }])]
    const found = resolveService(
      { namespace: 'shop', name: 'orders', port: 80 },
      { asker: 'shop', service: service(), slices, lastGood: [] },
    )
    assert.deepEqual(found, {
      kind: 'endpoints',
      endpoints: [{ ip: '10.0.0.1', port: 8080, zone: 'a' }],
      problem: null,
    })
  })

  it('carry the zones that Kubernetes means them for, where these are not just their own', () => {
    const hinted = (ip: string, ...zones: string[]): Endpoint => {
      return { addresses: [ip], zone: 'a', hints: { forZones: zones.map((name) => ({ name })) } }
    }
    const silent: Endpoint = { addresses: ['10.0.0.4'], zone: 'a', hints: null }
    const slices = [slice([hinted('10.0.0.1', 'a'), hinted('10.0.0.2', 'b'), hinted('10.0.0.3', 'c', 'a'), silent])]
    const found = resolveService(
      { namespace: 'shop', name: 'orders', port: 80 },
      { asker: 'shop', service: service(), slices, lastGood: [] },
    )
    assert.deepEqual(found.kind === 'endpoints' && found.endpoints.map(({ forZones }) => forZones), [
      undefined,
      ['b'],
      ['a', 'c'],
      undefined,
    ])
  })

  it('are those that end and still serve, while no other is ready', () => {
    const both = [slice([ending('10.0.0.1'), ready('10.0.0.2')])]
    assert.deepEqual(resolve({ slices: both }).at, ['10.0.0.2:8080'])
    assert.deepEqual(resolve({ slices: [slice([ending('10.0.0.1'), failing('10.0.0.2')])] }).at, ['10.0.0.1:8080'])
  })

  it('stay those that were in use and are still there when the readiness of all fails at once', () => {
    const lastGood = [
      { ip: '10.0.0.1', port: 8080 },
      { ip: '10.0.0.9', port: 8080 },
    ]
    const slices = [slice([failing('10.0.0.1'), failing('10.0.0.2')])]
    assert.deepEqual(resolve({ slices, lastGood }), { at: ['10.0.0.1:8080'], problem: null })
  })

  it('are none when Kubernetes lists none, for an address may be that of another pod by now', () => {
    const { at, problem } = resolve({ slices: [slice([])], lastGood: [{ ip: '10.0.0.1', port: 8080 }] })
    assert.deepEqual(at, [])
    assert.equal(
      problem,
      "Service 'orders' of namespace 'shop' has no ready endpoint for port 80: look at its pods and its selector",
    )
  })

  it('stay the last good ones when the Service is gone or has lost the port', () => {
    const lastGood = [{ ip: '10.0.0.1', port: 8080 }]
    assert.deepEqual(resolve({ service: undefined, lastGood }), {
      at: ['10.0.0.1:8080'],
      problem: "Service 'orders' of namespace 'shop' does not exist: create it or correct the name",
    })
    assert.deepEqual(resolve({ port: 'grpc', lastGood }), {
      at: ['10.0.0.1:8080'],
      problem: "Service 'orders' of namespace 'shop' has no port 'grpc': use 80 (http)",
    })
    assert.match(resolve({ port: 53 }).problem ?? '', /has no port 53/, 'a port of UDP is none')
  })

  it('are of one family, so that a pod with two addresses counts once', () => {
    const six = slice([ready('2001:db8::1')], { addressType: 'IPv6' })
    const dual = service({ ipFamilies: ['IPv6', 'IPv4'] })
    assert.deepEqual(resolve({ slices: [slice([ready('10.0.0.1')]), six] }).at, ['10.0.0.1:8080'])
    assert.deepEqual(resolve({ service: dual, slices: [slice([ready('10.0.0.1')]), six] }).at, ['2001:db8::1:8080'])
    assert.deepEqual(resolve({ slices: [slice([failing('10.0.0.1')]), six] }).at, ['2001:db8::1:8080'])
  })

  it('are once there while a pod moves from one slice to another', () => {
    const slices = [slice([ready('10.0.0.1')]), slice([ending('10.0.0.1')])]
    assert.deepEqual(resolve({ slices }).at, ['10.0.0.1:8080'])
    assert.deepEqual(resolve({ slices: slices.toReversed() }).at, ['10.0.0.1:8080'])
  })

  it('have the number that was asked for when a headless Service names no ports', () => {
    const headless = service({ clusterIP: 'None', ports: [] })
    assert.deepEqual(
      resolve({ service: headless, port: 9000, slices: [slice([ready('10.0.0.1')], { ports: [] })] }).at,
      ['10.0.0.1:9000'],
    )
    assert.match(resolve({ service: headless, port: 'http' }).problem ?? '', /use a number$/)
  })

  it('are found by DNS for type ExternalName', () => {
    const external = service({
      type: 'ExternalName',
      externalName: 'db.example.com',
      ports: [{ name: 'pg', port: 5432 }],
    })
    assert.deepEqual(resolve({ service: external, port: 'pg' }).at, ['db.example.com:5432'])
    assert.deepEqual(resolve({ service: external, port: 6432 }).at, ['db.example.com:6432'])
  })

  it('are bounded, always the same ones, from the whole list', () => {
    const all = Array.from({ length: 2 * MAX_SERVICE_ENDPOINTS }, (_, n) => ready(`10.0.${n >> 8}.${n & 255}`))
    const { at } = resolve({ slices: [slice(all)] })
    assert.equal(at.length, MAX_SERVICE_ENDPOINTS)
    assert.deepEqual(resolve({ slices: [slice(all.toReversed())] }).at, at)
  })
})

describe('a Service of another namespace', () => {
  const slices = [slice([ready('10.0.0.1')])]
  const lastGood = [{ ip: '10.0.0.1', port: 8080 }]
  const refused =
    "Service 'orders' of namespace 'shop' does not exist or does not allow namespace 'web': create it, and have its owner annotate it with ambassador.dev/allow-from=web"

  it('is used when its annotation names the namespace or all', () => {
    for (const value of ['web', 'api, web', '*']) {
      const allowed = service({}, { 'ambassador.dev/allow-from': value })
      assert.deepEqual(resolve({ asker: 'web', service: allowed, slices }).at, ['10.0.0.1:8080'], value)
    }
  })

  it('gives nothing otherwise, not even what was used before, and the same words as one that does not exist', () => {
    for (const value of ['', 'webshop', 'we*']) {
      const other = service({}, { 'ambassador.dev/allow-from': value })
      assert.deepEqual(resolve({ asker: 'web', service: other, slices, lastGood }), { at: [], problem: refused })
    }
    assert.deepEqual(resolve({ asker: 'web', service: undefined, slices, lastGood }), { at: [], problem: refused })
  })
})
