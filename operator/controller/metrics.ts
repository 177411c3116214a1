/** Metrics of the operator, each declared once. Gauges are read when somebody scrapes. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Ambassador } from '../api/ambassador.ts'

export class OperatorMetrics {
  readonly reconciles: Counter<'result'>
  readonly reconcileDuration: Histogram
  readonly apiRequests: Counter<'method' | 'code'>
  readonly apiDuration: Histogram<'method'>
  readonly watchErrors: Counter<'resource' | 'reason'>
  readonly events: Counter<'result'>
  readonly touches: Counter
  readonly statusWrites: Counter
  readonly publishes: Counter
  readonly unhandled: Counter

  constructor(registry: Registry) {
    const registers = [registry]
    this.reconciles = new Counter({
      name: 'ambassador_reconcile_total',
      help: 'Reconciles of an Ambassador by result: success, requeued, error.',
      labelNames: ['result'],
      registers,
    })
    this.reconcileDuration = new Histogram({
      name: 'ambassador_reconcile_duration_seconds',
      help: 'Time of one reconcile, with its writes.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    })
    this.publishes = new Counter({
      name: 'ambassador_reconcile_publishes_total',
      help: 'ConfigMaps written: created, changed or restored.',
      registers,
    })
    this.statusWrites = new Counter({
      name: 'ambassador_reconcile_status_writes_total',
      help: 'Statuses written.',
      registers,
    })
    this.apiRequests = new Counter({
      name: 'ambassador_api_requests_total',
      help: 'Requests to the API server by method and HTTP status; 0: no answer.',
      labelNames: ['method', 'code'],
      registers,
    })
    this.apiDuration = new Histogram({
      name: 'ambassador_api_request_duration_seconds',
      help: 'Time until the answer of the API server was read.',
      labelNames: ['method'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    })
    this.watchErrors = new Counter({
      name: 'ambassador_watch_errors_total',
      help: 'Lists and watches that ended early, by collection and reason.',
      labelNames: ['resource', 'reason'],
      registers,
    })
    this.events = new Counter({
      name: 'ambassador_events_total',
      help: 'Kubernetes Events by result: written, aggregated, dropped (over budget), failed.',
      labelNames: ['result'],
      registers,
    })
    this.touches = new Counter({
      name: 'ambassador_touches_total',
      help: 'Pods touched so that their kubelet reads a new configuration at once.',
      registers,
    })
    this.unhandled = new Counter({
      name: 'ambassador_unhandled_errors_total',
      help: 'Errors that no code expected. Each is a fault of the operator: its log has the stack.',
      registers,
    })
  }
}

export interface GaugeSources {
  readonly isLeading: () => boolean
  /** Each cache with the seconds since it last heard from the API server. */
  readonly staleness: () => Iterable<readonly [resource: string, seconds: number]>
  readonly queues: () => Iterable<readonly [queue: string, depth: number]>
  readonly ambassadors: () => Iterable<Ambassador>
}

const CONDITION_VALUES: Readonly<Record<string, number>> = { True: 1, False: 0, Unknown: -1 }

/** Gauges of what is so at the moment of the scrape. Those of Ambassadors come from the leader alone, so that they can be summed. */
export function registerGauges(registry: Registry, sources: GaugeSources): void {
  const registers = [registry]
  new Gauge({
    name: 'ambassador_leader',
    help: '1 on the replica that writes, 0 on the others.',
    registers,
    collect() {
      this.set(sources.isLeading() ? 1 : 0)
    },
  })
  new Gauge({
    name: 'ambassador_watch_staleness_seconds',
    help: 'Seconds since the API server last said anything about a collection; it says something once a minute at least.',
    labelNames: ['resource'],
    registers,
    collect() {
      this.reset()
      for (const [resource, seconds] of sources.staleness()) this.set({ resource }, seconds)
    },
  })
  new Gauge({
    name: 'ambassador_workqueue_depth',
    help: 'Keys that wait, those with a delay among them.',
    labelNames: ['queue'],
    registers,
    collect() {
      this.reset()
      for (const [queue, depth] of sources.queues()) this.set({ queue }, depth)
    },
  })
  new Gauge({
    name: 'ambassador_pods',
    help: 'Pods of each Ambassador: injected, ready, current (the newest configuration in force), missing (without a sidecar).',
    labelNames: ['ns', 'ambassador', 'state'],
    registers,
    collect() {
      this.reset()
      if (!sources.isLeading()) return
      for (const { metadata, status } of sources.ambassadors()) {
        for (const [state, value] of Object.entries(status?.pods ?? {})) {
          this.set({ ns: metadata.namespace ?? '', ambassador: metadata.name, state }, value)
        }
      }
    },
  })
  new Gauge({
    name: 'ambassador_condition',
    help: 'Conditions of each Ambassador: 1 True, 0 False, -1 Unknown.',
    labelNames: ['ns', 'ambassador', 'type'],
    registers,
    collect() {
      this.reset()
      if (!sources.isLeading()) return
      for (const { metadata, status } of sources.ambassadors()) {
        for (const { type, status: value } of status?.conditions ?? []) {
          this.set({ ns: metadata.namespace ?? '', ambassador: metadata.name, type }, CONDITION_VALUES[value] ?? -1)
        }
      }
    },
  })
}
