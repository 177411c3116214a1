/** What two applications see of a failover, one that follows the Sentinels itself and one behind the proxy, and how late the machine was meanwhile. */
import { Redis } from 'ioredis'
import { command } from './sentinel-proxy.ts'
import { TestClient } from './tcp.ts'

const TICK_MS = 10

export interface FailoverFigures {
  /** From the first write that the new master took of a client of most Sentinels, to the first that it took through the proxy. */
  readonly behindMs: number
  /** How long this process was late in that time, and the proxy with answers to something else. */
  readonly lateMs: number
  /** The longest time that the proxy took for such an answer while it was probed: it may have stood still for so long. */
  readonly longestMs: number
  /** Writes through the proxy that were refused with READONLY after it. */
  readonly readonlys: number
}

export interface ProbedFailover {
  readonly sentinels: readonly number[]
  readonly proxyPort: number
  readonly telemetryPort: number
  readonly password: string
}

/** Probes from now on, until the returned function is called, which wants the port of the new master. */
export async function probeFailover(at: ProbedFailover): Promise<(master: number) => Promise<FailoverFigures>> {
  const { sentinels, password } = at
  let isOver = false
  let directAt = Number.NaN
  /** When a write through the proxy was first taken, by the port of the server that did. */
  const takenAt = new Map<number, number>()
  const refusedAt: number[] = []
  const late: { readonly from: number; readonly to: number }[] = []

  /** One write on a connection of its own: the port of the server that took it; null: none did. */
  const write = async (port: number): Promise<number | null> => {
    const client = new TestClient({ port })
    client.write(command('SET', 'probe', '1') + command('CONFIG', 'GET', 'port'))
    try {
      for (;;) {
        const taken = /^\+OK\r\n(?:\*2|%1)\r\n\$4\r\nport\r\n\$\d+\r\n(\d+)\r\n/.exec(client.text)?.[1]
        if (taken !== undefined) return Number(taken)
        if (client.text.includes('-READONLY')) refusedAt.push(performance.now())
        if (client.text.includes('-')) return null
        await client.read(client.length + 1)
      }
    } catch {
      return null
    } finally {
      client.socket.destroy()
    }
  }

  const throughProxy = async (): Promise<void> => {
    while (!isOver) {
      const port = await write(at.proxyPort)
      if (port !== null && !takenAt.has(port)) takenAt.set(port, performance.now())
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }

  let announcing = 0
  const onSwitch = async (text: string): Promise<void> => {
    announcing++
    if (announcing !== Math.floor(sentinels.length / 2) + 1) return
    const port = Number(text.split(' ')[4])
    while (!isOver && Number.isNaN(directAt)) {
      const client = new Redis({ port, password, retryStrategy: null, maxRetriesPerRequest: 0 })
      client.on('error', () => {})
      const isTaken = await client.set('direct', '1').catch(() => null)
      if (isTaken !== null) directAt = performance.now()
      client.disconnect()
    }
  }
  const watches = sentinels.map((port) => new Redis({ port }))
  for (const watch of watches) {
    watch.on('error', () => {})
    watch.on('message', (_channel: string, text: string) => void onSwitch(text))
    await watch.subscribe('+switch-master')
  }

  let longestMs = 0
  let ticked = performance.now()
  const ticks = setInterval(() => {
    late.push({ from: ticked + TICK_MS, to: performance.now() })
    ticked = performance.now()
  }, TICK_MS)
  const asking = async (): Promise<void> => {
    while (!isOver) {
      const from = performance.now()
      await fetch(`http://127.0.0.1:${at.telemetryPort}/livez`).then((answer) => answer.text())
      late.push({ from, to: performance.now() })
      longestMs = Math.max(longestMs, performance.now() - from)
      await new Promise((resolve) => setTimeout(resolve, TICK_MS))
    }
  }
  const loops = [throughProxy(), asking()]

  return async (master) => {
    while (!takenAt.has(master) || Number.isNaN(directAt)) await new Promise((resolve) => setTimeout(resolve, TICK_MS))
    isOver = true
    clearInterval(ticks)
    for (const watch of watches) watch.disconnect()
    await Promise.all(loops)
    const proxyAt = takenAt.get(master)!
    return {
      behindMs: proxyAt - directAt,
      lateMs: late
        .filter(({ from, to }) => to > directAt && from < proxyAt)
        .reduce((sum, { from, to }) => sum + Math.max(0, to - from), 0),
      longestMs,
      readonlys: refusedAt.filter((time) => time > proxyAt).length,
    }
  }
}
