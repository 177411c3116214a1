/** Addresses and network namespaces: each cluster lives in its own, joined to the machine by one pair of virtual interfaces. */

import { existsSync, writeFileSync } from 'node:fs'
import { CommandError, run, succeeds } from '../../build/machine/exec.ts'

/** How many clusters may exist at the same time on a machine. */
export const SLOTS = 32

/** How many nodes a cluster may have. */
export const MAX_NODES = 2

/** Services have the same addresses in every cluster: nothing outside its namespaces sees them. */
export const SERVICE_CIDR = '10.96.0.0/16'
/** Address of the API server's Service: the first of the range. */
export const API_SERVICE_IP = '10.96.0.1'
export const DNS_SERVICE_IP = '10.96.0.10'

/** All addresses of one cluster, told by its slot. */
export interface Addresses {
  /** The machine, as the cluster sees it. A program on the machine is reached by pods under this address. */
  readonly host: string
  /** Nodes by number, from 0. The API server is on the first. */
  readonly nodes: readonly string[]
  /** Ranges of the nodes' pods, by number. */
  readonly pods: readonly string[]
  /** Range that covers the pods of all nodes. */
  readonly allPods: string
  /** First node's end of the link between the two nodes. */
  readonly nodeLink: string
}

/** Pure: the addresses of a slot. Slot 0 has pods 10.244.0.0/16 and the API server 172.31.255.2. */
export const addressesOf = (slot: number): Addresses => ({
  host: `172.31.${255 - slot}.1`,
  nodes: [`172.31.${255 - slot}.2`, `172.31.${255 - slot}.6`],
  pods: [`10.${244 - slot}.0.0/24`, `10.${244 - slot}.1.0/24`],
  allPods: `10.${244 - slot}.0.0/16`,
  nodeLink: `172.31.${255 - slot}.5`,
})

/** Name of a node's network namespace, also that of the machine's end of the link. Fifteen letters at most. */
export const namespaceOf = (slot: number, node: number): string => (node === 0 ? `amb${slot}` : `amb${slot}-${node}`)

/** Takes the first free slot by making its namespace, which only one process can do. Throws when all are taken. */
export const takeSlot = async (): Promise<number> => {
  for (let slot = 0; slot < SLOTS; slot++) {
    const name = namespaceOf(slot, 0)
    if (existsSync(`/run/netns/${name}`) || (await isRouted(addressesOf(slot)))) continue
    try {
      await run('ip', ['netns', 'add', name])
      return slot
    } catch (error) {
      if (!(error instanceof CommandError && existsSync(`/run/netns/${name}`))) throw error
    }
  }
  throw new Error(`network: all ${SLOTS} address ranges are taken, take clusters down with 'npm run cluster -- down'`)
}

// The machine may have a network of its own in this range, a VPN's for example.
const isRouted = async ({ host, allPods }: Addresses): Promise<boolean> => {
  const routes = await run('ip', ['-4', 'route', 'show'])
  const near = [host.replace(/\d+$/, ''), allPods.replace(/0\.0\/16$/, '')]
  return near.some((prefix) => routes.split('\n').some((route) => route.startsWith(prefix)))
}

/** Joins the first node's namespace, which exists, to the machine. Pods and nodes are then reached from the machine, and the machine from them; there is no way to the outside. */
export const joinToHost = async (slot: number): Promise<void> => {
  const { host, nodes, allPods } = addressesOf(slot)
  const namespace = namespaceOf(slot, 0)
  await run('ip', ['link', 'add', namespace, 'type', 'veth', 'peer', 'name', 'host', 'netns', namespace])
  await run('ip', ['address', 'add', `${host}/30`, 'dev', namespace])
  await run('ip', ['link', 'set', namespace, 'up'])
  await inside(namespace, ['address', 'add', `${nodes[0]}/30`, 'dev', 'host'])
  await prepare(namespace, 'host', host)
  await keepInside(namespace, host)
  await run('ip', ['route', 'add', allPods, 'via', nodes[0]!])
}

/** Makes the second node's namespace and joins it to the first's, with routes both ways. */
export const joinSecondNode = async (slot: number): Promise<void> => {
  const { nodes, pods, nodeLink } = addressesOf(slot)
  const first = namespaceOf(slot, 0)
  const second = namespaceOf(slot, 1)
  await run('ip', ['netns', 'add', second])
  await run('ip', ['-n', first, 'link', 'add', 'node2', 'type', 'veth', 'peer', 'name', 'node1', 'netns', second])
  await inside(first, ['address', 'add', `${nodeLink}/30`, 'dev', 'node2'])
  await inside(first, ['link', 'set', 'node2', 'up'])
  await inside(second, ['address', 'add', `${nodes[1]}/30`, 'dev', 'node1'])
  await prepare(second, 'node1', nodeLink)
  await inside(first, ['route', 'add', pods[1]!, 'via', nodes[1]!])
  await run('ip', ['route', 'add', `${nodes[1]}/32`, 'via', nodes[0]!])
}

const prepare = async (namespace: string, link: string, gateway: string): Promise<void> => {
  await inside(namespace, ['link', 'set', 'lo', 'up'])
  await inside(namespace, ['link', 'set', link, 'up'])
  await inside(namespace, ['route', 'add', 'default', 'via', gateway])
  await run('nsenter', [`--net=/run/netns/${namespace}`, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward'])
}

// The machine may forward packets: what a pod sends to an address that does not exist must not leave it, and is refused at
// once instead of being lost. A packet to a Service has its new address by then but still the old interface, so what was
// translated is let through.
const keepInside = async (namespace: string, host: string): Promise<void> => {
  for (const chain of ['FORWARD', 'OUTPUT']) {
    const rule = [
      '-o',
      'host',
      '!',
      '-d',
      host,
      '-m',
      'conntrack',
      '!',
      '--ctstate',
      'DNAT',
      '-j',
      'REJECT',
      '--reject-with',
      'icmp-net-unreachable',
    ]
    await run('nsenter', [`--net=/run/netns/${namespace}`, 'iptables', '--wait', '-A', chain, ...rule])
  }
}

const inside = (namespace: string, args: readonly string[]): Promise<string> => run('ip', ['-n', namespace, ...args])

/** Removes a node's namespace with all its interfaces; the routes of the machine go with them. */
export const removeNamespace = async (slot: number, node: number): Promise<void> => {
  const name = namespaceOf(slot, node)
  if (existsSync(`/run/netns/${name}`)) await run('ip', ['netns', 'delete', name])
  // The namespace may live on in a dying process; its end of the pair is then removed from this side.
  if (node === 0) await succeeds('ip', ['link', 'delete', name])
}

/** Loads kernel modules that are not loaded by themselves. Many kernels have them built in and no `modprobe`, so a failure says nothing. */
export const loadKernelModules = async (): Promise<void> => {
  await succeeds('modprobe', ['-a', 'overlay', 'veth', 'nf_conntrack'])
}

/** The container network configuration of a node. `ptp` and not `bridge`: every packet is routed, so that Services work without the br_netfilter module and its setting. */
export const cniConfig = (pods: string, dataDirectory: string): object => ({
  cniVersion: '0.4.0',
  name: 'pods',
  plugins: [
    {
      type: 'ptp',
      ipMasq: false,
      ipam: {
        type: 'host-local',
        dataDir: dataDirectory,
        ranges: [[{ subnet: pods }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
})

/** Writes the configuration where containerd looks for it. */
export const writeCniConfig = (file: string, pods: string, dataDirectory: string): void =>
  writeFileSync(file, JSON.stringify(cniConfig(pods, dataDirectory), undefined, 2))
