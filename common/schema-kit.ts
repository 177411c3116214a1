/** Building blocks of the API's schema: the same rule for the API server (CEL) and for us (a predicate), said once. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { DURATION_MAX_LENGTH, DURATION_PATTERN, durationMs, MAX_DURATION, notADuration } from './duration.ts'
import {
  NAME_PATTERN as HOST_NAME_PATTERN,
  NUMERIC_END_PATTERN as HOST_NUMERIC_END_PATTERN,
  HOST_PATTERN_MAX_LENGTH,
  IPV4_PATTERN,
  IPV6_PORT_PATTERN,
  isHostPattern,
} from './host-list.ts'
import {
  notAPercentage,
  notAQuantity,
  PERCENT_PATTERN,
  percentRatio,
  QUANTITY_PATTERN,
  quantityBytes,
} from './quantity.ts'

/** A rule as the API server knows it: one entry of `x-kubernetes-validations`. */
export interface CelRule {
  readonly rule: string
  /** Shown when messageExpression is absent or fails. */
  readonly message: string
  readonly messageExpression?: string
  /** Field below the one that carries the rule that the error names, such as `.retry`. */
  readonly fieldPath?: string
}

export interface RuleOptions<V> {
  /** CEL over `self` that holds for valid values. */
  readonly cel: string
  /** The same in TypeScript. Sees values whose own fields may have failed their rules, so it must not throw. */
  readonly holds: (value: V) => boolean
  /** What is wrong and the remedy; without the field, which the path names. */
  readonly message: string
  /** When the message names the value: CEL that makes it, and the same in TypeScript. */
  readonly says?: { readonly cel: string; readonly text: (value: V) => string }
  /** Names of the fields from this value down to the one that the error is about. */
  readonly field?: readonly string[]
}

const VALIDATIONS = 'x-kubernetes-validations'

/** Adds a rule to a schema. A value that breaks it gives the same message from the API server and from us. */
export function rule<T extends z.ZodType>(schema: T, options: RuleOptions<z.output<T>>): T {
  const meta = schema.meta() ?? {}
  const { cel, message, says, field } = options
  const added: CelRule = {
    rule: cel,
    message,
    ...(says && { messageExpression: says.cel }),
    ...(field && { fieldPath: field.map((name) => `.${name}`).join('') }),
  }
  const known = (meta[VALIDATIONS] as CelRule[] | undefined) ?? []
  const refined = schema.refine((value) => options.holds(value), {
    error: (issue) => (says ? says.text(issue.input as z.output<T>) : message),
    ...(field && { path: [...field] }),
  })
  return refined.meta({ ...meta, [VALIDATIONS]: [...known, added] }) as T
}

/** Adds several rules, in the order in which their messages are shown. */
export function rules<T extends z.ZodType>(schema: T, ...all: readonly RuleOptions<z.output<T>>[]): T {
  return all.reduce((refined, each) => rule(refined, each), schema)
}

/** Gives a schema its description. Says what the field means, its unit and what happens; the default is appended by the generator. */
export function doc<T extends z.ZodType>(schema: T, description: string): T {
  return schema.meta({ ...schema.meta(), description }) as T
}

/** An optional field whose default is not in the stored object: it depends on another field, so render() sets it. */
export function optional<T extends z.ZodType>(schema: T, description: string, defaultText: string): z.ZodOptional<T> {
  return doc(schema, `${description} Default: ${defaultText}.`).optional()
}

/**
 * An enum that has `Off`. kubectl, Helm and the API server read YAML 1.1, in which an unquoted `Off` is the boolean false, so
 * false is taken for it; a schema with two types has no type, and rules in CEL cannot see the field.
 */
export function enumWithOff<const V extends readonly string[]>(values: V) {
  return z
    .union([z.enum(values), z.literal(false)], { error: (issue) => notOneOf(issue.input, values) })
    .transform((value): V[number] => (value === false ? 'Off' : (value as V[number])))
    .meta({ 'x-kubernetes-preserve-unknown-fields': true, enum: [...values, false] })
}

/** Says that a value is none of the known ones. */
export function notOneOf(value: unknown, values: readonly unknown[]): string {
  const shown =
    typeof value === 'string'
      ? `'${value}'`
      : Array.isArray(value)
        ? 'a list'
        : typeof value === 'object'
          ? 'an object'
          : String(value)
  return `${shown} is not known, use one of ${values.join(', ')}`
}

/** An object of which exactly one of some optional keys must be given. */
export function exactlyOne<T extends z.ZodType>(schema: T, keys: readonly string[], subject: string): T {
  const has = (key: string) => `has(self.${celName(key)})`
  const given = (value: unknown) => keys.filter((key) => (value as Record<string, unknown>)?.[key] !== undefined)
  const needs = `${subject} needs exactly one of ${keys.join(', ')}`
  // Texts are joined term by term: the API server knows their greatest length then, which it does not for join() of a list.
  const list = keys.map((key) => `(${has(key)} ? ' ${key}' : '')`).join(' + ')
  return rule(schema, {
    cel: `[${keys.map(has).join(', ')}].filter(x, x).size() == 1`,
    holds: (value) => given(value).length === 1,
    message: needs,
    says: {
      cel: `'${needs}, and has' + (${keys.map(has).join(' || ')} ? ${list} : ' none')`,
      text: (value) => `${needs}, and has ${given(value).join(' ') || 'none'}`,
    },
  })
}

/** Of a union that may be left out as a whole: two of its fields are one too many. */
export function atMostOne<T extends z.ZodType>(schema: T, keys: readonly string[], subject: string): T {
  const has = (key: string) => `has(self.${celName(key)})`
  const given = (value: unknown) => keys.filter((key) => (value as Record<string, unknown>)?.[key] !== undefined)
  const takes = `${subject} takes one of ${keys.join(', ')}`
  const list = keys.map((key) => `(${has(key)} ? ' ${key}' : '')`).join(' + ')
  return rule(schema, {
    cel: `[${keys.map(has).join(', ')}].filter(x, x).size() <= 1`,
    holds: (value) => given(value).length <= 1,
    message: takes,
    says: {
      cel: `'${takes}, and has' + ${list}`,
      text: (value) => `${takes}, and has ${given(value).join(' ')}`,
    },
  })
}

/** Marks an object that is meant to have no fields: that it is there says all. */
export const NO_FIELDS = 'x-no-fields'

/** A choice without settings, written as `{}`. */
export function choice() {
  return z.object({}).meta({ [NO_FIELDS]: true })
}

/** A field as CEL names it: the API server writes underscores around words of the language. */
function celName(key: string): string {
  return CEL_WORDS.includes(key) ? `__${key}__` : key
}

const CEL_WORDS = ['in', 'true', 'false', 'null']

/** A list in the order in which it is written, merged as a whole. */
export function list<T extends z.ZodType>(items: T, max: number): z.ZodArray<T> {
  return z.array(items).max(max).meta({ 'x-kubernetes-list-type': 'atomic' }) as z.ZodArray<T>
}

/** A list whose items are told apart by some of their fields; the API server refuses two alike and merges by them. */
export function listMap<T extends z.ZodType>(items: T, keys: readonly string[], max: number): z.ZodArray<T> {
  return unique(z.array(items).max(max), (item) =>
    JSON.stringify(keys.map((key) => (item as Record<string, unknown>)?.[key])),
  ).meta({
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': [...keys],
  }) as z.ZodArray<T>
}

/** A list of scalars without two alike. */
export function listSet<T extends z.ZodType>(items: T, max: number): z.ZodArray<T> {
  return unique(z.array(items).max(max), (item) => JSON.stringify(item)).meta({
    'x-kubernetes-list-type': 'set',
  }) as z.ZodArray<T>
}

function unique<T extends z.ZodType>(list: z.ZodArray<T>, keyOf: (item: unknown) => string): z.ZodArray<T> {
  return list.superRefine((values, context) => {
    const seen = new Set<string>()
    values.forEach((value, index) => {
      const key = keyOf(value)
      if (seen.has(key)) context.addIssue({ code: 'custom', path: [index], message: 'duplicate value, remove it' })
      seen.add(key)
    })
  })
}

/** CEL text of a string literal. Quotes and backslashes are not in our patterns. */
const lit = (text: string) => `'${text}'`

/** A duration such as `5s`; with `zero`, `0s` too, which then means no limit. */
export function duration(options: { zero?: boolean } = {}) {
  const least = options.zero ? "duration(self) >= duration('0s')" : "duration(self) > duration('0s')"
  const remedy = options.zero ? ', or 0s for no limit' : ''
  return rule(z.string().max(DURATION_MAX_LENGTH), {
    cel: `self.matches(${lit(DURATION_PATTERN)}) && ${least} && duration(self) <= duration('${MAX_DURATION}')`,
    holds: (text) => {
      const ms = durationMs(text)
      return ms !== undefined && (options.zero === true || ms > 0)
    },
    message: `not a duration: use a number with a unit from 1ms to 168h, such as 250ms, 5s or 1h30m${remedy}`,
    says: {
      cel: `"'" + self + "' is not a duration: use a number with a unit from 1ms to 168h, such as 250ms, 5s or 1h30m${remedy}"`,
      text: (text) => notADuration(text) + remedy,
    },
  })
}

/** CEL guard for rules that compare durations: true while one of them is not a duration, which its own rule then says. */
export function notDurations(...paths: string[]): string {
  return paths.map((path) => `!${path}.matches(${lit(DURATION_PATTERN)})`).join(' || ')
}

/** A quantity of bytes such as `64Ki`, up to a maximum. */
export function quantity(max: string) {
  const most = quantityBytes(max)!
  return rule(z.string().max(24), {
    cel: `self.matches(${lit(QUANTITY_PATTERN)}) && quantity(self).compareTo(quantity('${max}')) <= 0`,
    holds: (text) => (quantityBytes(text) ?? Number.POSITIVE_INFINITY) <= most,
    message: `not a quantity of bytes: use a number with or without a unit, such as 512, 64Ki or 1Mi, at most ${max}`,
    says: {
      cel: `"'" + self + "' is not a quantity of bytes: use a number with or without a unit, such as 512, 64Ki or 1Mi, at most ${max}"`,
      text: (text) => notAQuantity(text, max),
    },
  })
}

/** A share such as `20%`. With `positive`, `0%` is refused. */
export function percent(options: { positive?: boolean } = {}) {
  const share = rule(z.string().max(12), {
    cel: `self.matches(${lit(PERCENT_PATTERN)})`,
    holds: (text) => percentRatio(text) !== undefined,
    message: `not a percentage: use a number from 0 to 100 with a percent sign in quotes, such as "20%"`,
    says: {
      cel: `"'" + self + "' is not a percentage: use a number from 0 to 100 with a percent sign in quotes, such as \\"20%\\""`,
      text: notAPercentage,
    },
  })
  if (!options.positive) return share
  return rule(share, {
    cel: `!self.matches('^0+([.]0+)?%$')`,
    holds: (text) => percentRatio(text) !== 0,
    message: `must be more than 0%`,
  })
}

/** A TCP port from 1 to 65535. */
export function port() {
  return integer(1, 65535)
}

/** An integer from `min` to `max`. */
export function integer(min: number, max: number) {
  const range = (issue: { code?: string; input?: unknown }) =>
    issue.code === 'too_small' || issue.code === 'too_big'
      ? `${issue.input} is out of range, use ${min} to ${max}`
      : undefined
  return z.int32({ error: range }).min(min, { error: range }).max(max, { error: range })
}

const NAME_PATTERN = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'

/** The name of an object of Kubernetes (RFC 1123 subdomain). */
export function objectName() {
  return rule(z.string().max(253), {
    cel: `self.matches(${lit(NAME_PATTERN)})`,
    holds: (text) => new RegExp(NAME_PATTERN).test(text),
    message: 'not the name of an object: use lower-case letters, digits, dashes and dots',
    says: {
      cel: `"'" + self + "' is not the name of an object: use lower-case letters, digits, dashes and dots"`,
      text: (text) => `'${text}' is not the name of an object: use lower-case letters, digits, dashes and dots`,
    },
  })
}

const LABEL_PATTERN = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'

/** A name inside an object: an RFC 1123 label of at most 63 characters. */
export function label() {
  return rule(z.string().max(63), {
    cel: `self.matches(${lit(LABEL_PATTERN)})`,
    holds: (text) => new RegExp(LABEL_PATTERN).test(text),
    message: 'not a name: use lower-case letters, digits and dashes, with a letter or digit at both ends',
    says: {
      cel: `"'" + self + "' is not a name: use lower-case letters, digits and dashes, with a letter or digit at both ends"`,
      text: (text) =>
        `'${text}' is not a name: use lower-case letters, digits and dashes, with a letter or digit at both ends`,
    },
  })
}

const KEY_PATTERN = '^[-._a-zA-Z0-9]+$'

/** A key in a Secret or ConfigMap. `.` and `..` are no keys, and names that begin with `..` belong to the kubelet. */
function dataKey() {
  return rule(z.string().max(253), {
    cel: `self.matches(${lit(KEY_PATTERN)}) && self != '.' && !self.startsWith('..')`,
    holds: (text) => new RegExp(KEY_PATTERN).test(text) && text !== '.' && !text.startsWith('..'),
    message: 'not a key of a Secret or ConfigMap: use letters, digits, dashes, underscores and dots',
    says: {
      cel: `"'" + self + "' is not a key of a Secret or ConfigMap: use letters, digits, dashes, underscores and dots"`,
      text: (text) =>
        `'${text}' is not a key of a Secret or ConfigMap: use letters, digits, dashes, underscores and dots`,
    },
  })
}

/** Port names are labels; one of digits alone would be taken for a number that somebody put in quotes. */
const PORT_NAME_PATTERN = '^([a-z0-9]([-a-z0-9]*[a-z0-9])?)$'
const PORT_REMEDY = 'use a number from 1 to 65535, or the name that the Service gives it'

/** A port of a Service, by number or by name. */
export function servicePort() {
  const either = z
    .union([z.int32(), z.string().max(63)], {
      error: (issue) =>
        issue.input === undefined
          ? 'is required, add it'
          : `${JSON.stringify(issue.input)} is not a port: ${PORT_REMEDY}`,
    })
    .meta({ 'x-kubernetes-int-or-string': true, maxLength: 63 })
  return rule(either, {
    cel: `type(self) == int ? self >= 1 && self <= 65535 : self.matches(${lit(PORT_NAME_PATTERN)}) && !self.matches('^[0-9]+$')`,
    holds: (value) =>
      typeof value === 'number'
        ? value >= 1 && value <= 65535
        : new RegExp(PORT_NAME_PATTERN).test(value) && !/^[0-9]+$/.test(value),
    message: `not a port: ${PORT_REMEDY}`,
    says: {
      cel: `"'" + string(self) + "' is not a port: ${PORT_REMEDY}"`,
      text: (value) => `'${value}' is not a port: ${PORT_REMEDY}`,
    },
  })
}

const SECRET = 'The Secret is looked up in the namespace of the pod.'

/** One key of a Secret of the same namespace. */
export function secretKeyRef() {
  return z.object({
    name: doc(objectName(), `Name of the Secret. ${SECRET}`),
    key: doc(dataKey(), 'Key in the Secret.'),
  })
}

/** One key of a ConfigMap of the same namespace. */
export function configMapKeyRef() {
  return z.object({
    name: doc(objectName(), 'Name of the ConfigMap. It is looked up in the namespace of the pod.'),
    key: doc(dataKey(), 'Key in the ConfigMap.'),
  })
}

// Underscores are not in RFC 1123, and are in names that people really use (Compose services, SRV names).
const DNS_LABEL = '[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?'
const DNS_NAME_PATTERN = `^(${DNS_LABEL}[.])*${DNS_LABEL}[.]?$`
/** The last label is a number: an IPv4 address, or one that somebody mistyped; no such name can exist (RFC 3696 section 2). */
const NUMERIC_END_PATTERN = '(^|[.])[0-9]+[.]?$'

const isDnsName = (text: string) =>
  new RegExp(DNS_NAME_PATTERN).test(text) && !new RegExp(NUMERIC_END_PATTERN).test(text)
const DNS_NAME_CEL = `self.matches(${lit(DNS_NAME_PATTERN)}) && !self.matches(${lit(NUMERIC_END_PATTERN)})`

/** An IP address as the API server's isIP() sees it: no zone and no IPv4 inside IPv6. */
export function isAddress(text: string): boolean {
  if (isIP(text) === 4) return true
  return isIP(text) === 6 && !text.includes('%') && !new URL(`http://[${text}]`).hostname.startsWith('[::ffff:')
}

/** A DNS name. */
export function dnsName() {
  return hostRule(DNS_NAME_CEL, isDnsName, 'a DNS name')
}

/** A DNS name or an IP address. */
export function host() {
  return hostRule(
    `${DNS_NAME_CEL} || isIP(self)`,
    (text) => isDnsName(text) || isAddress(text),
    'a DNS name or an IP address',
  )
}

function hostRule(cel: string, holds: (text: string) => boolean, what: string) {
  const scheme = 'give the name alone, without a scheme or path'
  const withPort = 'give the name alone, its port goes into port'
  const brackets = 'give the address without brackets'
  const other = `use ${what}`
  return rule(z.string().max(253), {
    cel,
    holds,
    message: `not a host: ${other}`,
    says: {
      cel: `"'" + self + "' is not a host: " + (self.contains('/') ? '${scheme}' : self.startsWith('[') ? '${brackets}' : self.matches('^[^:]+:[0-9]+$') ? '${withPort}' : '${other}')`,
      text: (text) =>
        `'${text}' is not a host: ${text.includes('/') ? scheme : text.startsWith('[') ? brackets : /^[^:]+:[0-9]+$/.test(text) ? withPort : other}`,
    },
  })
}

/** An entry of a list of hosts: `host`, `host:port`, `*.domain`, an address or a range of addresses. */
export function hostPattern() {
  const remedy = 'use a host such as api.example.com:443, *.example.com, an address or a range such as 10.0.0.0/8'
  const bracketed = `self.matches(${lit(IPV6_PORT_PATTERN.replaceAll('\\', '\\\\'))})`
  return rule(z.string().max(HOST_PATTERN_MAX_LENGTH), {
    cel: `(self.matches(${lit(HOST_NAME_PATTERN)}) && !self.matches(${lit(HOST_NUMERIC_END_PATTERN)})) || self.matches(${lit(IPV4_PATTERN)}) || ${bracketed} || isIP(self) || isCIDR(self)`,
    holds: isHostPattern,
    message: `not a host: ${remedy}`,
    says: {
      cel: `"'" + self + "' is not a host: ${remedy}"`,
      text: (text) => `'${text}' is not a host: ${remedy}`,
    },
  })
}
