/** How busy the machine was: a bound on time is no judgement of the product on one where everything waits for a CPU. */
import { readFileSync } from 'node:fs'

/**
 * Milliseconds since boot in which some process was ready to run and had no CPU, as the kernel counts them (pressure stall
 * information). 0 where it does not, so that a bound stays as it is. The difference of two is never more than the time between them.
 */
export function waitedForCpuMs(): number {
  try {
    const [, total = '0'] = /^some .*total=(\d+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8')) ?? []
    return Number(total) / 1000
  } catch {
    return 0
  }
}
