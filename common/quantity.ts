/** Quantities of bytes (`64Ki`, `1M`) and shares (`20%`) as people write them. */

/** What a quantity of bytes looks like, in RE2 and JavaScript alike: the Kubernetes form without exponents and milli-units. */
export const QUANTITY_PATTERN = '^[0-9]{1,12}([.][0-9]{1,3})?(k|M|G|Ki|Mi|Gi)?$'

const QUANTITY = new RegExp(QUANTITY_PATTERN)
const SIZES: Record<string, number> = {
  '': 1,
  k: 1000,
  M: 1000 ** 2,
  G: 1000 ** 3,
  Ki: 1024,
  Mi: 1024 ** 2,
  Gi: 1024 ** 3,
}

/** Bytes of a quantity, rounded up to a whole one as Kubernetes does; undefined when the text is not a quantity. */
export function quantityBytes(text: string): number | undefined {
  if (!QUANTITY.test(text)) return undefined
  const unit = text.replace(/^[0-9.]+/, '')
  // At most three digits follow the point, so thousandths are whole numbers and nothing is lost in a double.
  const [whole = '0', fraction = ''] = text.slice(0, text.length - unit.length).split('.')
  const thousandths = Number(whole) * 1000 + Number(fraction.padEnd(3, '0'))
  return Math.ceil((thousandths * SIZES[unit]!) / 1000)
}

/** Says what is wrong with a text that is no quantity of bytes up to a maximum, with the remedy. */
export function notAQuantity(text: string, max: string): string {
  return `'${text}' is not a quantity of bytes: use a number with or without a unit, such as 512, 64Ki or 1Mi, at most ${max}`
}

/** What a share looks like, in RE2 and JavaScript alike: 0% to 100%, with up to four digits after the point. */
export const PERCENT_PATTERN = '^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$'

const PERCENT = new RegExp(PERCENT_PATTERN)

/** A share as a number from 0 to 1; undefined when the text is not a percentage from 0% to 100%. */
export function percentRatio(text: string): number | undefined {
  return PERCENT.test(text) ? Number(text.slice(0, -1)) / 100 : undefined
}

/** Says what is wrong with a text that is no percentage, with the remedy. */
export function notAPercentage(text: string): string {
  return `'${text}' is not a percentage: use a number from 0 to 100 with a percent sign in quotes, such as "20%"`
}
