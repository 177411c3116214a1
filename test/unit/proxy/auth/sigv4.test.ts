import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Sha256 } from '@aws-crypto/sha256-js'
import { SignatureV4 } from '@smithy/signature-v4'
import fc from 'fast-check'
import { amzDate, authorization, EMPTY_HASH, sha256 } from '../../../../proxy/auth/sigv4.ts'

const KEYS = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' }
const SCOPE = { service: 'service', region: 'us-east-1' }
const DATE = '20150830T123600Z'
const HOST = ['Host', 'example.amazonaws.com'] as const
const STAMP = ['X-Amz-Date', DATE] as const
const UNRESERVED = '-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const TOKEN = '6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267'
const FORM = 'Param1=value1'

/** Known answers: names, requests and signatures of the test suite that AWS publishes for version 4. */
const VECTORS: readonly {
  readonly name: string
  readonly method?: string
  readonly target?: string
  readonly fields?: readonly (readonly [string, string])[]
  readonly body?: string
  readonly signature: string
}[] = [
  { name: 'get-vanilla-query', signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31' },
  {
    name: 'get-header-key-duplicate',
    fields: ['value2', 'value2', 'value1'].map((value) => ['My-Header1', value] as const),
    signature: 'c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea',
  },
  {
    name: 'get-header-value-order',
    fields: ['value4', 'value1', 'value3', 'value2'].map((value) => ['My-Header1', value] as const),
    signature: '08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01',
  },
  {
    name: 'get-header-value-trim',
    fields: [
      ['My-Header1', ' value1'],
      ['My-Header2', ' "a   b   c"'],
    ],
    signature: 'acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736',
  },
  {
    name: 'get-relative-relative-normalized',
    target: '/example1/example2/../..',
    signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
  },
  {
    name: 'get-slashes-normalized',
    target: '//example//',
    signature: '9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84',
  },
  {
    name: 'get-space-normalized',
    target: '/example space/',
    signature: '652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741',
  },
  {
    name: 'get-utf8',
    target: '/ሴ',
    signature: '8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85',
  },
  {
    name: 'get-unreserved',
    target: `/${UNRESERVED}`,
    signature: '07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f',
  },
  {
    name: 'get-vanilla-empty-query-key',
    target: '/?Param1=value1',
    signature: 'a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb',
  },
  {
    name: 'get-vanilla-query-order-encoded',
    target: '/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1',
    signature: '371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac',
  },
  {
    name: 'get-vanilla-query-order-key-case',
    target: '/?Param2=value2&Param1=value1',
    signature: 'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500',
  },
  {
    name: 'get-vanilla-query-unreserved',
    target: `/?${UNRESERVED}=${UNRESERVED}`,
    signature: '9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197',
  },
  {
    name: 'get-vanilla-utf8-query',
    target: '/?ሴ=bar',
    signature: '2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04',
  },
  {
    name: 'get-vanilla-with-session-token',
    fields: [['X-Amz-Security-Token', TOKEN]],
    signature: '07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8',
  },
  {
    name: 'post-x-www-form-urlencoded',
    method: 'POST',
    fields: [
      ['Content-Type', 'application/x-www-form-urlencoded'],
      ['Content-Length', '13'],
      ['x-amz-content-sha256', '9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e'],
    ],
    body: FORM,
    signature: 'd3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b',
  },
]

describe('a signature of AWS, version 4', () => {
  for (const { name, method = 'GET', target = '/', fields = [], body, signature } of VECTORS) {
    it(`is the published one for ${name}`, () => {
      const payloadHash = body === undefined ? EMPTY_HASH : sha256(body)
      const request = { method, target, fields: [HOST, ...fields, STAMP], payloadHash }
      assert.equal(authorization(request, KEYS, SCOPE, DATE).split('Signature=')[1], signature)
    })
  }

  it("is the one of AWS's own library for any path, query, fields and service", async () => {
    const word = fc.stringMatching(/^[-._~0-9A-Za-z]{1,8}$/)
    const segment = fc.oneof(word, fc.constantFrom('', '.', '..', '%2F', '%E1%88%B4', 'a%20b'))
    await fc.assert(
      fc.asyncProperty(
        fc.array(segment, { maxLength: 5 }),
        fc.dictionary(word, word, { maxKeys: 4 }),
        fc.dictionary(fc.stringMatching(/^x-amz-meta-[a-z]{1,5}$/), word, { maxKeys: 3 }),
        fc.constantFrom('execute-api', 's3', 'dynamodb'),
        fc.string({ maxLength: 40 }),
        async (segments, query, extra, service, body) => {
          const isObject = service === 's3'
          const path = `/${(isObject ? segments.filter((each) => !/^\.*$/.test(each) && each !== '%2F') : segments).join('/')}`
          const pairs = Object.entries(query)
          const target = pairs.length === 0 ? path : `${path}?${pairs.map((pair) => pair.join('=')).join('&')}`
          const headers = { host: 'a.example', 'x-amz-content-sha256': sha256(Buffer.from(body)), ...extra }
          const signer = new SignatureV4({
            credentials: KEYS,
            region: 'eu-west-1',
            service,
            sha256: Sha256,
            uriEscapePath: !isObject,
            applyChecksum: false,
          })
          const date = new Date('2026-11-21T09:00:00Z')
          const theirs = await signer.sign(
            { method: 'PUT', protocol: 'https:', hostname: 'a.example', path, query, headers, body },
            { signingDate: date },
          )
          const stamp = amzDate(date.getTime())
          const fields = [...Object.entries(headers), ['X-Amz-Date', stamp] as const]
          const request = { method: 'PUT', target, fields, payloadHash: sha256(Buffer.from(body)) }
          const ours = authorization(request, KEYS, { service, region: 'eu-west-1' }, stamp)
          assert.equal(ours, theirs.headers['authorization'])
        },
      ),
      { numRuns: 200 },
    )
  })
})
