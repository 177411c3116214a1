/** Quantities of CPU and memory as pods carry them: the whole grammar of Kubernetes, compared exactly. */

const QUANTITY = /^(\d+(?:\.\d*)?|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d{1,2})?$/
const NANO = 1_000_000_000n
const DECIMAL: Record<string, bigint> = {
  n: 1n,
  u: 1000n,
  m: 1_000_000n,
  k: NANO * 10n ** 3n,
  M: NANO * 10n ** 6n,
  G: NANO * 10n ** 9n,
  T: NANO * 10n ** 12n,
  P: NANO * 10n ** 15n,
  E: NANO * 10n ** 18n,
}
const BINARY: Record<string, bigint> = {
  Ki: NANO * 2n ** 10n,
  Mi: NANO * 2n ** 20n,
  Gi: NANO * 2n ** 30n,
  Ti: NANO * 2n ** 40n,
  Pi: NANO * 2n ** 50n,
  Ei: NANO * 2n ** 60n,
}

/** Longest text that is read as a quantity. */
const MAX_LENGTH = 32

/** Billionths of a quantity that is not negative, rounded up as Kubernetes does; undefined when the text is none. */
export function nanos(quantity: string): bigint | undefined {
  const match = quantity.length <= MAX_LENGTH ? QUANTITY.exec(quantity) : null
  if (match === null) return undefined
  const [whole = '', fraction = ''] = (match[1] as string).split('.')
  let numerator = BigInt(whole + fraction || '0')
  let denominator = 10n ** BigInt(fraction.length)
  const suffix = match[2] ?? ''
  if (/^[eE]/.test(suffix) && suffix !== 'E') {
    const exponent = Number(suffix.slice(1))
    numerator *= NANO
    if (exponent >= 0) numerator *= 10n ** BigInt(exponent)
    else denominator *= 10n ** BigInt(-exponent)
  } else {
    numerator *= DECIMAL[suffix] ?? BINARY[suffix] ?? NANO
  }
  return (numerator + denominator - 1n) / denominator
}

/** The larger of two quantities, as it was written. */
export function larger(a: string, b: string): string {
  return (nanos(a) ?? 0n) >= (nanos(b) ?? 0n) ? a : b
}

/** The smaller of two quantities, as it was written. */
export function smaller(a: string, b: string): string {
  return (nanos(a) ?? 0n) <= (nanos(b) ?? 0n) ? a : b
}

const DECIMAL_SUFFIXES = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E']
const BINARY_SUFFIXES = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']

/** A quantity as the API server writes it (`0.01` is `10m`, `1024Mi` is `1Gi`), so that what it stores is what we rendered. The text itself when it is no quantity. */
export function canonical(quantity: string): string {
  const value = nanos(quantity)
  if (value === undefined || value === 0n) return quantity
  const isBinary = quantity.endsWith('i') && value % NANO === 0n && value >= 1024n * NANO
  const [base, suffixes] = isBinary ? [1024n, BINARY_SUFFIXES] : [1000n, DECIMAL_SUFFIXES]
  let number = isBinary ? value / NANO : value
  let exponent = 0
  while (number % base === 0n && exponent < suffixes.length - 1) {
    number /= base
    exponent++
  }
  return `${number}${suffixes[exponent]}`
}
