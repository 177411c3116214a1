import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AmbassadorSpec } from '../../../../operator/api/ambassador.ts'
import { render } from '../../../../operator/render/render.ts'
import { type PlainOptions, plainConfig } from '../../../../proxy/config/plain.ts'

const OPTIONS: PlainOptions = {
  namespace: 'shop',
  host: 'api.example.com',
  port: 443,
  listenPort: 8081,
  protocol: 'HTTP',
  tls: null,
}

function rendered(spec: AmbassadorSpec) {
  const metadata = { name: 'default', namespace: 'shop', generation: 0 }
  const { config, problems } = render({
    ambassador: { apiVersion: 'ambassador.dev/v1alpha1', kind: 'Ambassador', metadata, spec },
  })
  assert.deepEqual(
    problems.filter((each) => each.severity === 'Error'),
    [],
  )
  return config
}

describe('the config of a plain container', () => {
  it('is what the operator renders for the same wishes over HTTP', () => {
    const spec: AmbassadorSpec = {
      protocol: 'HTTP',
      listen: { port: 8081 },
      upstreams: [
        {
          name: 'upstream',
          endpoints: [{ host: 'api.example.com', port: 443 }],
          tls: {},
          circuitBreaker: { consecutiveFailures: 5 },
        },
      ],
      retry: { maxRetries: 3, on: ['ConnectFailure', 'Reset', '5xx'] },
    }
    assert.deepEqual(
      plainConfig({ ...OPTIONS, maxRetries: 3, breakerThreshold: 5, tls: { caFile: null } }),
      rendered(spec),
    )
  })

  it('is what the operator renders for the same wishes over TCP', () => {
    const spec: AmbassadorSpec = {
      protocol: 'TCP',
      listen: { port: 8081 },
      upstreams: [{ name: 'upstream', endpoints: [{ host: 'api.example.com', port: 443 }] }],
    }
    assert.deepEqual(plainConfig({ ...OPTIONS, protocol: 'TCP' }), rendered(spec))
  })
})
