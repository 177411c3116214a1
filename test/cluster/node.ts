/** One node: containerd, kubelet and kube-proxy, with folders, addresses and a control group of its own. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'
import { type ClusterPlan, type DaemonPlan, writeKubeconfig } from './control-plane.ts'
import { DNS_SERVICE_IP, writeCniConfig } from './network.ts'

/** What is known of a node. */
export interface NodePlan {
  /** `node1` or `node2`. */
  readonly name: string
  /** From 0. */
  readonly number: number
  readonly directory: string
  /** Below the root of every hierarchy, with a slash in front. */
  readonly cgroup: string
  readonly containerdSocket: string
}

/** The image in which a pod's network lives. It is made here, see pause.ts. */
export const PAUSE_IMAGE = 'localhost/ambassador-pause:1'

/** Debian's package puts them there. */
export const CNI_PLUGINS = '/usr/lib/cni'

export const nodePlan = (directory: string, slot: number, number: number): NodePlan => {
  const name = `node${number + 1}`
  return {
    name,
    number,
    directory: join(directory, name),
    cgroup: `/amb${slot}-${name}`,
    containerdSocket: join(directory, name, 'containerd.sock'),
  }
}

/** Makes the node's folders and containerd's configuration. */
export const containerd = async (plan: ClusterPlan, node: NodePlan): Promise<DaemonPlan> => {
  const cni = join(node.directory, 'cni')
  for (const directory of [cni, join(node.directory, 'kubelet'), join(node.directory, 'logs')]) {
    mkdirSync(directory, { recursive: true })
  }
  writeCniConfig(join(cni, 'pods.conflist'), plan.addresses.pods[node.number]!, join(node.directory, 'ipam'))
  const config = join(node.directory, 'containerd.toml')
  writeFileSync(config, renderContainerdConfig(node, await snapshotter(node.directory)))
  return { name: `containerd-${node.name}`, command: 'containerd', args: ['--config', config] }
}

/** What containerd keeps unpacked images with. Inside another container the folder may itself be an overlay, on which no other can be laid. */
export const snapshotter = async (directory: string): Promise<string> =>
  (await run('stat', ['--file-system', '--format=%T', directory])).trim() === 'overlayfs' ? 'native' : 'overlayfs'

/** Pure: containerd's configuration, which versions 1.6 to 2 read. */
export const renderContainerdConfig = (node: NodePlan, snapshotterName: string): string => {
  const cri = `plugins."io.containerd.grpc.v1.cri"`
  return `version = 2
root = "${join(node.directory, 'containerd')}"
state = "${join(node.directory, 'containerd-state')}"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "${node.containerdSocket}"

[${cri}]
sandbox_image = "${PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE nobody may lower an oom score, and every sandbox would fail.
restrict_oom_score_adj = true
# In our own folder, so that they can be found when the cluster is taken down.
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"

[${cri}.containerd]
snapshotter = "${snapshotterName}"
default_runtime_name = "runc"

[${cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[${cri}.containerd.runtimes.runc.options]
SystemdCgroup = false

[${cri}.cni]
bin_dir = "${CNI_PLUGINS}"
conf_dir = "${join(node.directory, 'cni')}"
max_conf_num = 1
`
}

/** The kubelet, with the certificate of its node. */
export const kubelet = async (plan: ClusterPlan, node: NodePlan): Promise<DaemonPlan> => {
  const kubeconfig = await writeKubeconfig(plan, node.name, `system:node:${node.name}`, 'system:nodes')
  const serving = await plan.pki.server(`${node.name}-serving`, [node.name, plan.addresses.nodes[node.number]!])
  const config = join(node.directory, 'kubelet.json')
  const resolver = join(node.directory, 'resolv.conf')
  writeFileSync(resolver, `nameserver ${DNS_SERVICE_IP}\n`)
  const settings = {
    ...kubeletConfig(node),
    authentication: { anonymous: { enabled: false }, x509: { clientCAFile: plan.pki.ca.certificate } },
    tlsCertFile: serving.certificate,
    tlsPrivateKeyFile: serving.key,
    resolvConf: resolver,
  }
  writeFileSync(config, JSON.stringify(settings, undefined, 2))
  return {
    name: `kubelet-${node.name}`,
    command: plan.binaries.kubelet,
    args: [
      `--config=${config}`,
      `--kubeconfig=${kubeconfig}`,
      `--hostname-override=${node.name}`,
      `--node-ip=${plan.addresses.nodes[node.number]}`,
      `--root-dir=${join(node.directory, 'kubelet')}`,
    ],
  }
}

/** Pure: what of the kubelet's settings does not depend on certificates. */
export const kubeletConfig = (node: NodePlan): Record<string, unknown> => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  containerRuntimeEndpoint: `unix://${node.containerdSocket}`,
  cgroupDriver: 'cgroupfs',
  cgroupRoot: node.cgroup,
  failSwapOn: false,
  authorization: { mode: 'AlwaysAllow' },
  clusterDNS: [DNS_SERVICE_IP],
  clusterDomain: 'cluster.local',
  maxPods: 200,
  serializeImagePulls: false,
  // The usual folder /var/log/pods belongs to one kubelet alone: it removes what it does not know.
  podLogsDir: join(node.directory, 'logs'),
  volumePluginDir: join(node.directory, 'volume-plugins'),
  // A developer's disk may be nearly full; nothing can be pulled again, so no image may be removed.
  imageGCHighThresholdPercent: 100,
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '500Mi',
    'nodefs.inodesFree': '1%',
    'imagefs.available': '500Mi',
    'imagefs.inodesFree': '1%',
  },
})

/** kube-proxy with iptables. */
export const kubeProxy = async (plan: ClusterPlan, node: NodePlan): Promise<DaemonPlan> => {
  const kubeconfig = await writeKubeconfig(plan, 'kube-proxy', 'system:kube-proxy', 'system:node-proxier')
  const config = join(node.directory, 'kube-proxy.json')
  writeFileSync(
    config,
    JSON.stringify({
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'iptables',
      hostnameOverride: node.name,
      clusterCIDR: plan.addresses.allPods,
      clientConnection: { kubeconfig },
      // Only the machine's own namespace may set the size of the connection table.
      conntrack: { maxPerCore: 0, min: 0 },
      iptables: { minSyncPeriod: '0s' },
    }),
  )
  return { name: `kube-proxy-${node.name}`, command: plan.binaries['kube-proxy'], args: [`--config=${config}`] }
}
