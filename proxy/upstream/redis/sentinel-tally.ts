/** Counts what the Sentinels of a master say: more than half of them must agree. Pure. */
import type { Place } from './sentinel-view.ts'
import { placeName } from './sentinel-view.ts'

/** What one Sentinel has to say. */
export interface Ballot {
  /** Its id, or its address while nobody knows that. Two with the same are one. */
  readonly voter: string
  /** Its address, for a person. */
  readonly name: string
  /** Undefined: it has not answered. Null: it does not know the master. */
  readonly master: Place | null | undefined
}

export interface Tally {
  readonly voters: number
  /** How many must agree. */
  readonly needed: number
  /** Null: not enough do. */
  readonly master: Place | null
  /** Addresses of those that agree on it. */
  readonly agreeing: ReadonlySet<string>
  /** Why there is no master, for a person; null when there is one. */
  readonly problem: string | null
}

/** @param absent Sentinels that count and have no address */
export function tally(ballots: readonly Ballot[], absent: number, masterName: string): Tally {
  const voters = new Map<string, Ballot>()
  for (const ballot of ballots) {
    const other = voters.get(ballot.voter)
    if (other === undefined || other.master === undefined) voters.set(ballot.voter, ballot)
  }
  const count = voters.size + absent
  const needed = Math.floor(count / 2) + 1
  const sides = new Map<string, { readonly place: Place; readonly names: string[] }>()
  for (const { name, master } of voters.values()) {
    if (master == null) continue
    const side = sides.get(placeName(master)) ?? { place: master, names: [] }
    side.names.push(name)
    sides.set(placeName(master), side)
  }
  const [first, ...others] = [...sides.values()].sort((a, b) => b.names.length - a.names.length)
  const base = { voters: count, needed }
  if (first !== undefined && first.names.length >= needed) {
    return { ...base, master: first.place, agreeing: new Set(first.names), problem: null }
  }
  const none = { ...base, master: null, agreeing: new Set<string>() }
  if (first === undefined) return { ...none, problem: nobody([...voters.values()], count, masterName) }
  const say = ({ place, names }: { place: Place; names: string[] }) =>
    `${placeName(place)} (${names.length} of ${count}: ${names.join(', ')})`
  const what =
    others.length > 0
      ? `the Sentinels disagree on the master '${masterName}', ${[first, ...others].map(say).join(' and ')}`
      : `of ${count} Sentinels only ${first.names.length} names the master '${masterName}', ${say(first)}`
  return { ...none, problem: `${what}: ${needed} must agree` }
}

function nobody(voters: readonly Ballot[], count: number, masterName: string): string {
  const ignorant = voters.filter(({ master }) => master === null)
  if (ignorant.length === 0) return `none of ${count} Sentinels answers`
  return `no Sentinel knows a master '${masterName}'`
}
