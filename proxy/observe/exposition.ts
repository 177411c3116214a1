/** Writes the text format of Prometheus (version 0.0.4). The client library would cost each sidecar 6 MB for what is 60 lines here. */

export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export type Labels = Readonly<Record<string, string | number>>

/** Upper bounds of a histogram's buckets in seconds, and the counts of one series (not cumulative; the last one is +Inf). */
export interface HistogramCells {
  readonly counts: ArrayLike<number>
  readonly sum: number
}

export class Exposition {
  readonly #lines: string[] = []

  /** Begins a metric; its samples follow. */
  metric(name: string, type: 'counter' | 'gauge' | 'histogram', help: string): void {
    this.#lines.push(
      `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
      `# TYPE ${name} ${type}`,
    )
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
    for (let i = 0; i < bounds.length; i++) {
      total += cells.counts[i] ?? 0
      this.sample(`${name}_bucket`, { ...labels, le: numberText(bounds[i] as number) }, total)
    }
    total += cells.counts[bounds.length] ?? 0
    this.sample(`${name}_bucket`, { ...labels, le: '+Inf' }, total)
    this.sample(`${name}_sum`, labels, cells.sum)
    this.sample(`${name}_count`, labels, total)
  }

  text(): string {
    return `${this.#lines.join('\n')}\n`
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
