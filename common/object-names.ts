/** Names of objects that are derived from the name of an Ambassador; the controller writes them and the webhook mounts them. */
import { createHash } from 'node:crypto'

/**
 * Shortens a name to a maximum: as it stands when it fits, else its beginning and eight hex digits of its SHA-256, so that two
 * long names that begin alike stay different.
 */
export function shorten(name: string, max: number): string {
  if (name.length <= max) return name
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8)
  // A name may not hold `.-` or end in a dot before the dash.
  return `${name.slice(0, max - 9).replace(/[^a-z0-9]+$/, '')}-${hash}`
}

/** Name of the ConfigMap of an Ambassador. At most 253 characters. */
export function configMapName(ambassador: string): string {
  return shorten(`ambassador-${ambassador}`, 253)
}

/** Value of the label `ambassador.dev/ambassador` for an Ambassador. At most 63 characters, as label values are. */
export function ambassadorLabel(ambassador: string): string {
  return shorten(ambassador, 63)
}

/** How many characters of an audience a person gets to see in the name of its directory. */
const AUDIENCE_CHARACTERS = 30

/**
 * Name of the directory, and part of the name of the volume, of a service account's token: what can be read of the audience, and eight
 * hex digits that tell apart audiences and lives. At most 39 characters.
 */
export function tokenName(audience: string, expirationSeconds: number): string {
  const words = audience.toLowerCase().replace(/^[a-z]+:\/\//, '')
  const shown = words
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, AUDIENCE_CHARACTERS)
    .replaceAll(/^-+|-+$/g, '')
  const hash = createHash('sha256').update(`${expirationSeconds} ${audience}`).digest('hex').slice(0, 8)
  return shown === '' ? hash : `${shown}-${hash}`
}
