/** The spans of one Ambassador on their way to its collector, over every change of the config. */
import type { Log } from '../../common/log.ts'
import type { TracingConfig } from '../../common/proxy-config.ts'
import { OtlpExporter, type OtlpOptions, type Span } from './otlp.ts'

export interface SenderParts {
  /** Name of the pod; null outside Kubernetes. */
  readonly pod: string | null
  readonly log: Log
  /** How the collector's name is looked up; see OtlpOptions. */
  readonly lookup?: OtlpOptions['lookup']
}

export class SpanSender {
  readonly #namespace: string
  readonly #ambassador: string
  readonly #parts: SenderParts
  #exporter: OtlpExporter | null = null
  /** Replaced, and sending what they still have. */
  readonly #leaving = new Set<OtlpExporter>()
  /** Of exporters that are gone: a counter never goes back. */
  #exported = 0
  #dropped = 0

  constructor(namespace: string, ambassador: string, parts: SenderParts) {
    this.#namespace = namespace
    this.#ambassador = ambassador
    this.#parts = parts
  }

  /** Spans that the collector took. */
  get exported(): number {
    let sum = this.#exported + (this.#exporter?.exported ?? 0)
    for (const each of this.#leaving) sum += each.exported
    return sum
  }

  /** Spans that no collector got, because it was slow, away or unwilling. */
  get dropped(): number {
    let sum = this.#dropped + (this.#exporter?.dropped ?? 0)
    for (const each of this.#leaving) sum += each.dropped
    return sum
  }

  /** A new config is in force. What waits for an earlier collector goes to that one. */
  update(config: TracingConfig | undefined): void {
    const { endpoint } = config ?? {}
    const old = this.#exporter
    if (endpoint === old?.endpoint) return
    this.#exporter = endpoint === undefined ? null : this.#open(endpoint)
    if (old === null) return
    this.#leaving.add(old)
    void old.close().then(() => {
      this.#leaving.delete(old)
      this.#exported += old.exported
      this.#dropped += old.dropped
    })
  }

  add(span: Span): void {
    this.#exporter?.add(span)
  }

  /** Sends what waits, within a second, and takes no more. */
  async close(): Promise<void> {
    await this.#exporter?.close()
  }

  #open(endpoint: string): OtlpExporter {
    const { pod, log, lookup } = this.#parts
    const ns = this.#namespace
    return new OtlpExporter({
      endpoint,
      ...(lookup && { lookup }),
      resource: {
        'service.name': 'ambassador',
        ...(ns !== '' && { 'service.namespace': ns, 'k8s.namespace.name': ns }),
        ...(pod !== null && { 'service.instance.id': pod, 'k8s.pod.name': pod }),
      },
      onFailure: (detail, count) => {
        log.warn({ ns, ambassador: this.#ambassador, detail, count }, 'spans cannot be sent, requests go on without')
      },
    })
  }
}
