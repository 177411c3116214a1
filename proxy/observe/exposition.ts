/** Writes the text format of Prometheus, or OpenMetrics. The client library would cost each sidecar 6 MB for what is 100 lines here. */

/** `OpenMetrics` is the same with examples in it, for whoever asks for it. */
export type ExpositionFormat = 'Prometheus' | 'OpenMetrics'

export const EXPOSITION_TYPES: Readonly<Record<ExpositionFormat, string>> = {
  Prometheus: 'text/plain; version=0.0.4; charset=utf-8',
  OpenMetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
}

/**
 * The format of an answer by the Accept of its request, which may be empty: OpenMetrics only where it is named and not liked less than plain
 * text, so that people and old collectors get what they know.
 */
export function formatFor(accept: string): ExpositionFormat {
  const wanted = { 'application/openmetrics-text': 0, 'text/plain': 0 }
  for (const range of accept.toLowerCase().split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim())
    if (type !== 'application/openmetrics-text' && type !== 'text/plain') continue
    const weight = Number(parameters.find((each) => each.startsWith('q='))?.slice(2) ?? 1)
    // One that is no number asks for nothing.
    if (weight > wanted[type]) wanted[type] = weight
  }
  const weight = wanted['application/openmetrics-text']
  return weight > 0 && weight >= wanted['text/plain'] ? 'OpenMetrics' : 'Prometheus'
}

export type Labels = Readonly<Record<string, string | number>>

/** One that was counted in a bucket, and the trace that tells more of it. */
export interface Exemplar {
  readonly traceId: string
  readonly value: number
  /** Seconds since 1970. */
  readonly at: number
}

/** Upper bounds of a histogram's buckets in seconds, and the counts of one series (not cumulative; the last one is +Inf). */
export interface HistogramCells {
  readonly counts: ArrayLike<number>
  readonly sum: number
  /** The newest of each bucket; null or absent: none is known. Only OpenMetrics has a place for them. */
  readonly exemplars?: readonly (Exemplar | null)[] | null
}

export class Exposition {
  readonly #lines: string[] = []
  readonly #isOpen: boolean

  /** @param format default Prometheus */
  constructor(format: ExpositionFormat = 'Prometheus') {
    this.#isOpen = format === 'OpenMetrics'
  }

  /** Begins a metric; its samples follow. */
  metric(name: string, type: 'counter' | 'gauge' | 'histogram', help: string): void {
    // OpenMetrics has `_total` in the names of samples alone, and quotes escaped in texts too.
    const family = this.#isOpen && type === 'counter' ? name.replace(/_total$/, '') : name
    const text = this.#isOpen ? escapeLabel(help) : help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
    this.#lines.push(`# HELP ${family} ${text}`, `# TYPE ${family} ${type}`)
  }

  sample(name: string, labels: Labels, value: number): void {
    this.#lines.push(`${name}${labelText(labels)} ${numberText(value)}`)
  }

  /** A metric with one sample and no labels. */
  single(name: string, type: 'counter' | 'gauge', help: string, value: number): void {
    this.metric(name, type, help)
    this.sample(name, {}, value)
  }

  /** One series of a histogram. */
  histogram(name: string, labels: Labels, bounds: readonly number[], cells: HistogramCells): void {
    let total = 0
    for (let i = 0; i <= bounds.length; i++) {
      total += cells.counts[i] ?? 0
      const le = numberText(bounds[i] ?? Number.POSITIVE_INFINITY)
      const exemplar = cells.exemplars?.[i] ?? null
      this.#bucket(name, { ...labels, le: this.#isOpen && /^\d+$/.test(le) ? `${le}.0` : le }, total, exemplar)
    }
    this.sample(`${name}_sum`, labels, cells.sum)
    this.sample(`${name}_count`, labels, total)
  }

  #bucket(name: string, labels: Labels, total: number, exemplar: Exemplar | null): void {
    const example =
      !this.#isOpen || exemplar === null
        ? ''
        : ` # {trace_id="${exemplar.traceId}"} ${numberText(exemplar.value)} ${exemplar.at.toFixed(3)}`
    this.#lines.push(`${name}_bucket${labelText(labels)} ${numberText(total)}${example}`)
  }

  text(): string {
    const lines = this.#isOpen ? [...this.#lines, '# EOF'] : this.#lines
    return `${lines.join('\n')}\n`
  }
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(String(value))}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}
