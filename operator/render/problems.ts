/** What render() found wrong: plain values that the controller turns into conditions and the CLI into lines. */

export interface Problem {
  /** Error: this Ambassador cannot be rendered. Warning: it is, and a person should know. */
  readonly severity: 'Error' | 'Warning'
  /** Type of the condition that tells it. */
  readonly condition: 'Accepted' | 'Programmed'
  /** One of the reasons of that condition; see operator/api/conditions.ts. */
  readonly reason: string
  /** Path of the field, such as `spec.upstreams[0].tls.serverName`. */
  readonly field: string
  /** What is wrong and the remedy; does not repeat the field. */
  readonly message: string
}

/** `spec.timeouts.connect: '10' is not a duration: ...` */
export function problemText(problem: Problem): string {
  return problem.field === '' ? problem.message : `${problem.field}: ${problem.message}`
}
