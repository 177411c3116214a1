/** Ports that two listeners of one pod would fight for: everything in a pod shares one loopback. */
import { Annotation } from '../../common/names.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import { type JsonObject, objectsOf } from './json.ts'
import { type Denial, deny } from './reasons.ts'
import type { PodSettings } from './settings-annotations.ts'

/** The first clash, or undefined. Only TCP counts, and only what containers declare: what they bind without saying so, the sidecar finds out. */
export function portConflict(
  spec: JsonObject,
  ambassadors: readonly InjectableAmbassador[],
  settings: PodSettings,
): Denial | undefined {
  const declared = declaredPorts(spec)
  const own = [
    { port: settings.telemetryPort, what: 'telemetry', key: Annotation.telemetryPort },
    { port: settings.adminPort, what: 'admin', key: Annotation.adminPort },
  ]
  const taken = new Set([...declared.keys(), ...ambassadors.map((each) => each.port), ...own.map((each) => each.port)])
  const byPort = new Map<number, string>()
  for (const { name, port } of ambassadors) {
    const other = byPort.get(port)
    if (other !== undefined) {
      return deny(
        'PortConflict',
        `${Annotation.inject}: Ambassadors "${other}" and "${name}" both listen on port ${port}; change spec.listen.port of one of them, for example to ${free(port, taken)}`,
      )
    }
    byPort.set(port, name)
    const container = declared.get(port)
    if (container !== undefined) {
      return deny(
        'PortConflict',
        `${Annotation.inject}: Ambassador "${name}" listens on port ${port}, which container "${container}" uses; change spec.listen.port, for example to ${free(port, taken)}, or the container's port`,
      )
    }
    const mine = own.find((each) => each.port === port)
    if (mine !== undefined) {
      return deny(
        'PortConflict',
        `${Annotation.inject}: Ambassador "${name}" listens on port ${port}, which is the sidecar's ${mine.what} port; set ${mine.key}, for example to ${free(port, taken)}`,
      )
    }
  }
  for (const { port, what, key } of own) {
    const container = declared.get(port)
    if (container !== undefined) {
      return deny(
        'PortConflict',
        `${key}: container "${container}" uses port ${port}, the sidecar's ${what} port; set the annotation to another port, for example ${free(port, taken)}`,
      )
    }
  }
  return undefined
}

/** Port -> name of the container. A hostPort is a port of the node, not of the pod, so it cannot clash. */
function declaredPorts(spec: JsonObject): Map<number, string> {
  const ports = new Map<number, string>()
  for (const container of [...objectsOf(spec['initContainers']), ...objectsOf(spec['containers'])]) {
    for (const port of objectsOf(container['ports'])) {
      const number = Number(port['containerPort'])
      if ((port['protocol'] ?? 'TCP') === 'TCP' && !ports.has(number)) ports.set(number, String(container['name']))
    }
  }
  return ports
}

/** The next port that nothing known uses. */
function free(port: number, taken: ReadonlySet<number>): number {
  for (let candidate = port + 1; candidate <= 65535; candidate++) if (!taken.has(candidate)) return candidate
  return free(1023, taken)
}
