/** One active check of an endpoint: can it be connected to, does TLS succeed, does it answer as its protocol says. */
import type { HealthCheckConfig, ProxyProtocol } from '../../../common/proxy-config.ts'
import type { DialGuard } from '../../policy/dial-guard.ts'
import { now } from '../../runtime/clock.ts'
import { NO_HANDLER, type RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { UpstreamTls } from '../../tls/upstream-tls.ts'
import { type Dial, dial, type StartTls, withoutDot } from '../connector.ts'
import type { Address } from '../discovery/discovery.ts'

/** What a protocol of its own asks an endpoint that is connected. */
export interface Prober {
  /** The kind of probe that it is for. */
  readonly kind: HealthCheckConfig['probe']['kind']
  /** How TLS begins; see DialTarget. */
  readonly startTls: StartTls | null
  readonly alpn: readonly string[] | null
  /** Nothing can be asked now, and nothing be known of the endpoint: there is no credential. */
  readonly isUnable: boolean
  /** Asks within timeoutMs and closes the connection. Calls `done` once, later: null when it passed, else why not. */
  probe(socket: RawSocket, address: Address, timeoutMs: number, done: (failure: string | null) => void): Dial
}

export interface CheckTarget {
  readonly address: Address
  /** Of the upstream. */
  readonly guard: DialGuard
  /** Of the upstream; not used by a `tcp` check. */
  readonly tls: UpstreamTls | null
  /** Of the upstream. Default: none. */
  readonly proxyProtocol?: ProxyProtocol | null
  /** Of the protocol; used by a check of its own. Default: there is none. */
  readonly prober?: Prober | null
  readonly config: HealthCheckConfig
}

/** Of an answer, the head is read at most this far for its status. */
const MAX_HEAD_BYTES = 16 * 1024
/** A server has this long to close as well. */
const LEAVE_MS = 1000

/**
 * @param failure null when it passed, else why not
 * @param isSilent nobody answered in any way
 * @param isUnable it could not be made for want of something on this side: nothing is known of the endpoint
 */
export type CheckEnd = (failure: string | null, isSilent?: boolean, isUnable?: boolean) => void

/**
 * Checks once, within config.timeoutMs in all. Never throws and calls `done` once, later.
 * @returns gives up; `done` is then never called
 */
export function check(target: CheckTarget, done: CheckEnd): () => void {
  const { config, guard, tls } = target
  const { host, ip, weight, priority } = target.address
  const address: Address = { host, ip, weight, priority, port: config.port ?? target.address.port }
  const isTls = tls !== null && config.probe.kind !== 'tcp'
  const prober = target.prober?.kind === config.probe.kind ? target.prober : null
  const startedAt = now()
  let stop = () => {}
  const attempt: Dial = dial(
    {
      address,
      guard,
      tls: isTls ? tls : null,
      alpn: isTls && config.probe.kind === 'http' ? ['http/1.1'] : (prober?.alpn ?? null),
      startTls: prober?.startTls ?? null,
      proxyProtocol: target.proxyProtocol ?? null,
      isCheck: true,
      timeoutMs: config.timeoutMs,
    },
    {
      onDialFailed: ({ reason, detail, isSilent }) => done(detail, isSilent, reason === 'overloaded'),
      onDialled: (socket) => {
        const { probe } = config
        if (probe.kind === 'http') {
          stop = ask(socket, requestOf(address, probe.path, isTls), startedAt + config.timeoutMs, (status, why) => {
            if (status === null) done(`GET ${probe.path} ${why ?? `was not answered within ${config.timeoutMs} ms`}`)
            else if (isExpected(probe.statuses, status)) done(null)
            else done(`GET ${probe.path} was answered with ${status}`)
          })
          return
        }
        if (prober !== null) {
          const probing = prober.probe(socket, address, Math.max(1, startedAt + config.timeoutMs - now()), done)
          stop = () => probing.cancel()
          return
        }
        if (isTls) leave(socket)
        else {
          socket.handler = NO_HANDLER
          socket.destroy()
        }
        done(null)
      },
    },
  )
  stop = () => attempt.cancel()
  return () => stop()
}

/**
 * Ends a connection in order. Closed at once, a handshake of TLS 1.3 has not sent its last message yet: the server would log a
 * broken handshake for each check.
 */
function leave(socket: RawSocket): void {
  const timer = new CoarseTimer(() => socket.destroy())
  socket.handler = { ...NO_HANDLER, onEnd: () => socket.destroy(), onClose: () => timer.release() }
  timer.set(now() + LEAVE_MS)
  socket.end()
}

function isExpected(statuses: readonly number[] | null, status: number): boolean {
  return statuses === null ? status >= 200 && status <= 399 : statuses.includes(status)
}

function requestOf({ host, port }: Address, path: string, isTls: boolean): string {
  const name = host.includes(':') ? `[${host}]` : withoutDot(host)
  // A Unix socket has no port.
  const authority = port === 0 || port === (isTls ? 443 : 80) ? name : `${name}:${port}`
  return `GET ${path} HTTP/1.1\r\nhost: ${authority}\r\nuser-agent: ambassador-health-check\r\naccept: */*\r\nconnection: close\r\n\r\n`
}

/** Sends a request and reads the status of the final answer; null with the reason when there is none, and without one in time. */
function ask(
  socket: RawSocket,
  request: string,
  deadline: number,
  done: (status: number | null, why: string | null) => void,
): () => void {
  let head = ''
  const timer = new CoarseTimer(() => finish(null, null))
  const end = () => {
    timer.release()
    socket.handler = NO_HANDLER
    socket.destroy()
  }
  const finish = (status: number | null, why: string | null) => {
    end()
    done(status, why)
  }
  socket.handler = {
    onData: (chunk, length) => {
      head += chunk.toString('latin1', 0, length)
      for (;;) {
        const line = /^HTTP\/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n/.exec(head)
        if (line === null) {
          if (head.includes('\n') || head.length > MAX_HEAD_BYTES) finish(null, 'was not answered in HTTP/1.1')
          return
        }
        const status = Number(line[1])
        if (status >= 200) {
          finish(status, null)
          return
        }
        // RFC 9110 section 15.2: another answer follows an informational one.
        const rest = head.search(/\r?\n\r?\n/)
        if (rest < 0) {
          if (head.length > MAX_HEAD_BYTES) finish(null, 'was answered with a head that is too long')
          return
        }
        head = head.slice(rest).replace(/^\r?\n\r?\n/, '')
        if (head === '') return
      }
    },
    onDrain: () => {},
    onEnd: () => finish(null, 'was not answered, the connection was closed'),
    onClose: () => finish(null, 'was not answered, the connection broke'),
  }
  timer.set(deadline)
  socket.write(Buffer.from(request))
  return end
}
