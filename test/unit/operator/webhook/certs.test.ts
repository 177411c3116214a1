import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { describe, it } from 'node:test'
import { silentLog } from '../../../../common/log.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { CA_SECRET, Certs, WEBHOOKS } from '../../../../operator/webhook/certs.ts'
import { createAuthority } from '../../../../operator/webhook/x509.ts'
import { CertificateApi } from '../../../helpers/certificate-api.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'

const NAME = 'ambassador-operator.ambassador-system.svc'
const HOUR = 3_600_000
const DAY = 24 * HOUR
const SECRETS = '/api/v1/namespaces/ambassador-system/secrets'
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ambassador-injector'

const setUp = (api = new CertificateApi(), clock = new FakeClock()) => {
  const certs = new Certs({ client: api, clock, log: silentLog, namespace: 'ambassador-system', names: [NAME] })
  return { api, clock, certs }
}
const installed = (): CertificateApi => {
  const api = new CertificateApi()
  api.install()
  return api
}
const pems = (bundle: string): string[] =>
  bundle.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n/g) ?? []
/** Which certificate of a bundle signed what is served: its place, or -1. */
const signedBy = (certs: Certs, bundle: string): number => {
  const leaf = new X509Certificate(certs.current?.certificate ?? '')
  return pems(bundle).findIndex((pem) => leaf.verify(new X509Certificate(pem).publicKey))
}
const serial = (certs: Certs): string => new X509Certificate(certs.current?.certificate ?? '').serialNumber

describe('the first certificate', () => {
  it('comes with a CA in a Secret, and the CA in every entry of ours and no other', async () => {
    const { api, certs } = setUp(installed())
    await certs.check()
    assert.deepEqual(api.requests, [
      `GET ${SECRETS}/${CA_SECRET}`,
      `POST ${SECRETS}`,
      `GET ${CONFIGURATION}`,
      `PATCH ${CONFIGURATION}`,
    ])
    assert.deepEqual(Object.keys(api.secret?.data ?? {}), ['ca.crt', 'ca.key'])
    for (const webhook of WEBHOOKS) assert.equal(pems(api.bundle(webhook)).length, 1)
    assert.equal(api.bundle('other.example.com'), '')
    assert.equal(signedBy(certs, api.bundle()), 0)
    assert.equal(certs.isTrusted, true)
  })

  it('counts from an hour ago, a week for the leaf and a year for the CA', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    const now = clock.wall()
    const life = (pem: string) => {
      const { validFrom, validTo } = new X509Certificate(pem)
      return [Date.parse(validFrom) - now, Date.parse(validTo) - now]
    }
    assert.deepEqual(life(certs.current?.certificate ?? ''), [-HOUR, 7 * DAY])
    assert.deepEqual(life(api.bundle()), [-HOUR, 365 * DAY])
    assert.deepEqual(certs.expirySeconds(), { leaf: 7 * 86_400, authority: 365 * 86_400 })
  })

  it('is the same at the next look, which reads twice and writes nothing', async () => {
    const { api, certs } = setUp(installed())
    await certs.check()
    const before = serial(certs)
    api.requests.length = 0
    await certs.check()
    assert.deepEqual(api.requests, [`GET ${SECRETS}/${CA_SECRET}`, `GET ${CONFIGURATION}`])
    assert.equal(serial(certs), before)
  })

  it('is served before there is a webhook configuration, and trusted when there is', async () => {
    const { api, certs } = setUp()
    await certs.check()
    assert.deepEqual([certs.current !== undefined, certs.isTrusted], [true, false])
    api.install()
    await certs.check()
    assert.equal(certs.isTrusted, true)
    assert.equal(signedBy(certs, api.bundle()), 0)
  })

  it('leaves out entries that the chart did not install, rather than making half of one', async () => {
    const api = new CertificateApi()
    api.install('ambassador-injector', ['pods.ambassador.dev'])
    const { certs } = setUp(api)
    await certs.check()
    assert.equal(certs.isTrusted, true)
    assert.equal(pems(api.bundle()).length, 1)
  })
})

describe('two replicas', () => {
  it('that start at once agree on one CA, and each signs its own leaf', async () => {
    for (let round = 0; round < 20; round++) {
      const api = installed()
      const all = [setUp(api), setUp(api), setUp(api)].map((each) => each.certs)
      await Promise.all(all.map((certs) => certs.check()))
      const tries = api.requests.filter((request) => request.startsWith('POST')).length
      assert.equal(tries, 3, 'all three wanted to be first')
      await Promise.all(all.map((certs) => certs.check()))
      assert.equal(pems(api.bundle()).length, 1)
      for (const certs of all) assert.equal(signedBy(certs, api.bundle()), 0)
      assert.equal(new Set(all.map(serial)).size, 3)
    }
  })

  it('that rotate at once make one new CA', async () => {
    const api = installed()
    const clock = new FakeClock()
    const [a, b] = [setUp(api, clock).certs, setUp(api, clock).certs]
    await a.check()
    await b.check()
    const [old] = pems(api.bundle())
    clock.wallOffset += 245 * DAY
    await Promise.all([a.check(), b.check()])
    await Promise.all([a.check(), b.check()])
    const now = pems(api.bundle())
    assert.equal(now.length, 2)
    assert.equal(now[1], old)
    assert.equal(signedBy(a, api.bundle()), signedBy(b, api.bundle()))
  })
})

describe('rotation', () => {
  it('renews the leaf when two thirds of its life have passed, with the same CA', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    const first = serial(certs)
    clock.wallOffset += 4.6 * DAY
    await certs.check()
    assert.equal(serial(certs), first)
    clock.wallOffset += 0.2 * DAY
    await certs.check()
    assert.notEqual(serial(certs), first)
    assert.equal(pems(api.bundle()).length, 1)
  })

  it('publishes a new CA first, signs with it after a while, and keeps the old one while it lives', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    clock.wallOffset += 244 * DAY
    await certs.check()
    assert.equal(pems(api.bundle()).length, 2)
    assert.equal(signedBy(certs, api.bundle()), 1, 'signed by the old CA while the new one is spread')
    clock.wallOffset += 5 * 60_000 - 1000
    await certs.check()
    assert.equal(signedBy(certs, api.bundle()), 1)
    clock.wallOffset += 2000
    await certs.check()
    assert.equal(signedBy(certs, api.bundle()), 0)
    assert.equal(pems(api.bundle()).length, 2)
    clock.wallOffset += 122 * DAY
    await certs.check()
    assert.equal(pems(api.bundle()).length, 1, 'the old CA has expired and is gone')
  })

  it('never serves what the bundle does not have, over years of looks at odd times', async () => {
    const { api, certs, clock } = setUp(installed())
    for (let day = 0; day < 5 * 365; day += 1 + (day % 3)) {
      clock.wallOffset += (1 + (day % 3)) * DAY
      await certs.check()
      assert.ok(signedBy(certs, api.bundle()) >= 0, `day ${day}`)
      const left = certs.expirySeconds()
      assert.ok((left?.leaf ?? 0) > 0 && (left?.authority ?? 0) > 0)
    }
  })

  it('after a machine was suspended for longer than everything lives starts anew', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    clock.wallOffset += 800 * DAY
    await certs.check()
    assert.equal(pems(api.bundle()).length, 1)
    assert.equal(signedBy(certs, api.bundle()), 0)
    assert.ok((certs.expirySeconds()?.leaf ?? 0) > 0)
  })

  it('makes a CA anew when the clock was far ahead and is right again', async () => {
    const { api, certs, clock } = setUp(installed())
    clock.wallOffset += 30 * DAY
    await certs.check()
    clock.wallOffset -= 30 * DAY
    await certs.check()
    const leaf = new X509Certificate(certs.current?.certificate ?? '')
    assert.ok(Date.parse(leaf.validFrom) <= clock.wall())
    assert.equal(signedBy(certs, api.bundle()), 0)
  })

  it('stays with the CA that API servers know while the configuration cannot be written', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    const before = api.bundle()
    clock.wallOffset += 244 * DAY
    api.before = ({ method }) => {
      if (method === 'PATCH') throw new ApiError('no', { status: 403, reason: 'Forbidden' })
    }
    await assert.rejects(certs.check(), { reason: 'Forbidden' })
    clock.wallOffset += DAY
    await assert.rejects(certs.check(), { reason: 'Forbidden' })
    assert.equal(signedBy(certs, before), 0)
    api.before = () => {}
    await certs.check()
    assert.equal(signedBy(certs, api.bundle()), 0)
  })
})

describe('what others do to Secret and configuration', () => {
  it('is repaired: a bundle that was written over', async () => {
    const { api, certs } = setUp(installed())
    await certs.check()
    const before = api.bundle()
    api.install()
    assert.equal(api.bundle(), '')
    await certs.check()
    assert.equal(api.bundle(), before)
  })

  it('is repaired: a Secret that was deleted, with a new CA that signs when API servers know it', async () => {
    const { api, certs, clock } = setUp(installed())
    await certs.check()
    const before = api.bundle()
    api.secret = undefined
    await certs.check()
    assert.deepEqual(pems(api.bundle()).slice(1), [before])
    assert.equal(signedBy(certs, api.bundle()), 1)
    clock.wallOffset += 5 * 60_000 + 1000
    await certs.check()
    assert.equal(signedBy(certs, api.bundle()), 0)
  })

  for (const { title, look } of [
    { title: 'one of them looks first', look: ['first', 'second'] },
    { title: 'the other looks first', look: ['second', 'first'] },
    { title: 'one that has just been started does', look: ['third', 'first', 'second'] },
    {
      title: 'one that has just been started does, and the others are late',
      look: ['third', 'first', 'third', 'second'],
    },
  ])
    it(`trusts what every replica serves, again and again, when the Secret is deleted and ${title}`, async () => {
      const { api, certs: first, clock } = setUp(installed())
      const replicas: Record<string, Certs> = { first, second: setUp(api, clock).certs }
      for (const each of Object.values(replicas)) await each.check()
      for (let time = 0; time < 3; time++) {
        api.secret = undefined
        if (look.includes('third')) replicas['third'] = setUp(api, clock).certs
        for (const name of look) {
          await replicas[name]?.check()
          for (const [other, each] of Object.entries(replicas))
            if (each.current !== undefined) assert.ok(signedBy(each, api.bundle()) >= 0, `${other} after ${name}`)
        }
        if (time < 2) continue // the next one is deleted before this one has signed
        clock.wallOffset += 5 * 60_000 + 1000
        for (const each of Object.values(replicas)) await each.check()
        assert.deepEqual(
          Object.values(replicas).map((each) => signedBy(each, api.bundle())),
          Object.values(replicas).map(() => 0),
        )
        assert.ok(pems(api.bundle()).length <= 2, 'nobody serves what the others signed')
      }
    })

  it('keeps no CA of somebody else in a bundle', async () => {
    const { api, certs } = setUp(installed())
    await certs.check()
    const [own] = pems(api.bundle())
    const foreign = `-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`
    for (const entry of api.entries()) entry.clientConfig.caBundle = Buffer.from(foreign + own).toString('base64')
    await certs.check()
    assert.deepEqual(pems(api.bundle()), [own])
  })

  it('is repaired: a Secret that cannot be used', async () => {
    const other = createAuthority({ notBefore: new Date(0), notAfter: new Date(Date.now() + DAY) })
    const base64 = (text: string) => Buffer.from(text).toString('base64')
    for (const data of [
      {},
      { 'ca.crt': '', 'ca.key': '' },
      { 'ca.crt': 'AAAA', 'ca.key': base64(other.privateKey) },
      'foreign key',
    ]) {
      const { api, certs, clock } = setUp(installed())
      await certs.check()
      const stored = api.secret
      assert.ok(stored?.data)
      stored.data =
        typeof data === 'string'
          ? { ...stored.data, 'ca.key': base64(other.privateKey) }
          : (data as Record<string, string>)
      const [before] = pems(api.bundle())
      await certs.check()
      assert.deepEqual(pems(api.bundle()).slice(1), [before])
      assert.equal(signedBy(certs, api.bundle()), 1, 'signed by the CA that API servers know')
      clock.wallOffset += 5 * 60_000 + 1000
      await certs.check()
      assert.equal(signedBy(certs, api.bundle()), 0)
    }
  })

  it('does not bring a configuration back that was deleted between look and write', async () => {
    const { api, certs } = setUp(installed())
    api.before = ({ method }) => {
      if (method === 'PATCH') api.install()
    }
    await assert.rejects(certs.check(), { status: 409 })
    assert.equal(api.bundle(), '')
    assert.equal(certs.isTrusted, false)
  })

  it('keeps the replica ready when the configuration goes', async () => {
    const { api, certs } = setUp(installed())
    await certs.check()
    api.removeConfiguration()
    await certs.check()
    assert.equal(certs.isTrusted, true)
  })
})

describe('checking again and again', () => {
  it('starts when the API server does, and goes on until it is closed', async () => {
    const { api, certs, clock } = setUp(installed())
    let isDown = true
    api.before = () => {
      if (isDown) throw new ApiError('no', { status: 0, reason: 'Unreachable' })
    }
    let hasStarted = false
    const started = certs.start().then(() => {
      hasStarted = true
    })
    await clock.advance(60_000)
    assert.equal(hasStarted, false)
    assert.ok(api.requests.length < 15, `${api.requests.length} tries in a minute`)
    isDown = false
    await clock.advance(20_000)
    await started
    assert.equal(signedBy(certs, api.bundle()), 0)

    api.install()
    await clock.advance(20_000)
    assert.equal(signedBy(certs, api.bundle()), 0, 'repaired within a look')
    certs.close()
    const count = api.requests.length
    await clock.advance(60_000)
    assert.equal(api.requests.length, count)
    assert.equal(clock.timers, 0)
  })

  it('looks again within a second while there is no configuration', async () => {
    const { api, certs, clock } = setUp()
    await certs.start()
    api.install()
    await clock.advance(1300)
    await certs.check() // joins the look that the timer has begun
    assert.equal(certs.isTrusted, true)
    assert.equal(api.requests.filter((request) => request.startsWith('GET') && request.includes('secrets')).length, 2)
    certs.close()
  })

  it('joins calls that come at once', async () => {
    const { api, certs } = setUp(installed())
    await Promise.all([certs.check(), certs.check(), certs.check()])
    assert.equal(api.requests.length, 4)
  })
})
