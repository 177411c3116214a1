/** Copies of requests to another upstream: sent after the answer, never waited for, and left out as soon as anything is scarce. */
import type { MirrorCounts } from '../../observe/cells.ts'
import type { Outcome } from '../../policy/policy.ts'
import { now } from '../../runtime/clock.ts'
import { isStrained } from '../../runtime/overload.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { NONE } from '../../upstream/balancer.ts'
import type { Dial, DialFailure } from '../../upstream/connector.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import {
  type ConnectionCaller,
  type ConnectionUser,
  HttpPool,
  type UpstreamConnection,
} from '../../upstream/http-pool.ts'
import { BodyReader } from './framing.ts'
import { HeadReader } from './head-reader.ts'
import { ResponseFacts } from './headers.ts'
import type { OutgoingRequest } from './outgoing.ts'
import type { HttpUpstream } from './snapshot.ts'

/** Copies under way to one upstream. */
const MAX_MIRRORED = 64
/** A copy, from its begin to the end of its answer. */
const MIRROR_MS = 15_000

/** Where the copies of a route go. */
export class Mirror {
  readonly #upstream: HttpUpstream
  readonly #ratio: number
  readonly #connectMs: number
  readonly #random: () => number

  /** @param ratio of the requests that are copied, 0 to 1 */
  constructor(upstream: HttpUpstream, ratio: number, connectMs: number, random: () => number = Math.random) {
    this.#upstream = upstream
    this.#ratio = ratio
    this.#connectMs = connectMs
    this.#random = random
  }

  /** A request that was sent has ended; its bytes are still there. */
  offer(request: OutgoingRequest): void {
    if (this.#ratio < 1 && this.#random() >= this.#ratio) return
    const { cluster, cells, credential } = this.#upstream
    const counts = cells.mirrored
    if (!request.isReplayable) {
      counts.tooLarge++
      return
    }
    const time = now()
    const isCrowded = isStrained() || counts.active >= MAX_MIRRORED
    const hasCredential = credential === null || credential.line !== null
    // Somebody who waits for the mirror's upstream is a request of its own.
    const isFree = !isCrowded && hasCredential && cluster.isReady && cluster.connections.pending === 0
    const endpoint = isFree ? cluster.pick(time, NONE) : null
    if (endpoint === null || typeof endpoint === 'string' || (cluster.pacer?.admit(time) ?? 0) !== 0) {
      counts.dropped++
      return
    }
    const pool = HttpPool.of(cluster, endpoint)
    const connection = pool.take(time, false)
    if (connection === null && !cluster.connections.tryAcquire()) {
      counts.dropped++
      return
    }
    const bytes = copyOf(request, this.#upstream, pool.host)
    new MirrorCall(counts, bytes, request.method === 'HEAD').begin(pool, connection, this.#connectMs, time)
  }
}

/** The request as it was sent, for another host: without the credential that is not for it, with its own. */
function copyOf(request: OutgoingRequest, { credential }: HttpUpstream, host: Buffer): Buffer {
  const { method, target, fields } = request.parts()
  const content = request.content()
  const signer = credential?.signer
  const dropped = new Set(['expect', ...(credential === null ? [] : [credential.name]), ...(signer?.replaces ?? [])])
  const kept = fields
    .filter(([name]) => !dropped.has(name.toLowerCase()))
    .map(([name, value]) => [name, name.toLowerCase() === 'host' ? ` ${host.toString('latin1')}` : value] as const)
  const line = signer?.sign({ method, target, fields: kept, content }) ?? credential?.line ?? null
  const lines = kept.map(([name, value]) => `${name}:${value}\r\n`).join('')
  const head = `${method} ${target} HTTP/1.1\r\n${lines}${line?.toString('latin1') ?? ''}\r\n`
  const body = request.keptBody
  const bytes = Buffer.allocUnsafeSlow(head.length + body.length)
  body.copy(bytes, bytes.write(head, 0, 'latin1'))
  return bytes
}

const facts = new ResponseFacts()

/** One copy on its way. Whatever becomes of it is counted and nothing else. */
class MirrorCall implements ConnectionUser, ConnectionCaller {
  readonly #counts: MirrorCounts
  readonly #bytes: Buffer
  readonly #isHead: boolean
  readonly #reader = new HeadReader('response')
  readonly #body = new BodyReader()
  readonly #timer = new CoarseTimer(() => this.#end('failure'))
  #endpoint: Endpoint | null = null
  #token = -1
  #dial: Dial | null = null
  #connection: UpstreamConnection | null = null
  #hasHead = false
  #isPersistent = false
  #keepAliveSeconds = -1

  constructor(counts: MirrorCounts, bytes: Buffer, isHead: boolean) {
    this.#counts = counts
    this.#bytes = bytes
    this.#isHead = isHead
  }

  begin(pool: HttpPool, connection: UpstreamConnection | null, connectMs: number, time: number): void {
    this.#counts.active++
    this.#timer.set(time + MIRROR_MS)
    this.#endpoint = pool.endpoint
    this.#token = pool.endpoint.begin(time)
    if (connection === null) this.#dial = pool.connect(this, connectMs)
    else this.#send(connection)
  }

  #send(connection: UpstreamConnection): void {
    connection.use(this)
    this.#connection = connection
    connection.raw.write(this.#bytes)
  }

  onDialled(connection: UpstreamConnection): void {
    this.#dial = null
    const { endpoint } = connection.pool
    if (endpoint !== this.#endpoint) {
      // Another address of the host accepted first.
      this.#settle('abandoned')
      this.#endpoint?.leave()
      this.#endpoint = endpoint
      this.#token = endpoint.beginConnected(now())
    }
    this.#send(connection)
  }

  onDialFailed({ reason }: DialFailure): void {
    this.#dial = null
    const isOurs = reason === 'overloaded'
    if (!isOurs) this.#endpoint?.dialFailed(now())
    this.#end(isOurs ? 'abandoned' : 'failure')
  }

  onUpstreamData(chunk: Buffer, length: number): void {
    let at = 0
    while (!this.#hasHead) {
      const result = this.#reader.read(chunk, at, length)
      if (result === 0) return
      const { head } = this.#reader
      if (result === -1 || facts.examine(head, this.#isHead) !== null || head.status === 101) {
        this.#end('failure')
        return
      }
      at = this.#reader.next
      if (head.status >= 200) {
        this.#hasHead = true
        this.#isPersistent = facts.isPersistent
        this.#keepAliveSeconds = facts.keepAliveSeconds
        this.#body.begin(facts.body, facts.length, false)
        this.#settle(head.status >= 500 ? 'failure' : head.status === 429 ? 'throttled' : 'success')
      }
      this.#reader.done()
    }
    const behind = this.#body.isDone ? at : this.#body.scan(chunk, at, length)
    if (behind === -1) this.#end('failure')
    else if (this.#body.isDone) this.#answered(behind === length)
  }

  #answered(isClean: boolean): void {
    const connection = this.#connection
    this.#connection = null
    this.#counts.sent++
    this.#leave()
    if (connection === null) return
    if (isClean && this.#isPersistent) connection.pool.giveBack(connection, this.#keepAliveSeconds)
    else connection.destroy()
  }

  onUpstreamEnd(): void {
    // The end of the connection may be the end of the body; what is lost otherwise nobody waits for.
    if (this.#hasHead) this.#answered(false)
    else this.#end('failure')
  }

  onUpstreamDrain(): void {}

  onUpstreamClose(): void {
    this.#connection = null
    this.#end('failure')
  }

  #settle(outcome: Outcome): void {
    if (this.#token >= 0) this.#endpoint?.settle(this.#token, outcome, now())
    this.#token = -1
  }

  /** It is over without an answer. */
  #end(outcome: Outcome): void {
    this.#settle(outcome)
    this.#dial?.cancel()
    this.#dial = null
    const connection = this.#connection
    this.#connection = null
    this.#counts.failed++
    this.#leave()
    connection?.destroy()
  }

  #leave(): void {
    this.#counts.active--
    this.#timer.release()
    this.#reader.done()
    this.#settle('abandoned')
    this.#endpoint?.leave()
    this.#endpoint = null
  }
}
