/** etcd, API server, controller manager, scheduler and DNS: the processes of a cluster that run no pods. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Binaries } from './build.ts'
import { type Addresses, API_SERVICE_IP, DNS_SERVICE_IP, SERVICE_CIDR } from './network.ts'
import { type KeyPair, type Pki, renderKubeconfig } from './pki.ts'

/** A daemon before it is started. */
export interface DaemonPlan {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
}

/** What every part of a cluster is told about it. */
export interface ClusterPlan {
  readonly name: string
  readonly directory: string
  readonly addresses: Addresses
  readonly binaries: Binaries
  readonly pki: Pki
}

/** Where the API server is reached, from the machine and from every node. */
const serverUrl = (addresses: Addresses): string => `https://${addresses.nodes[0]}:6443`

/** Full path of a user's kubeconfig in a cluster's folder. */
export const kubeconfigOf = (directory: string, user: string = 'admin'): string => join(directory, `${user}.kubeconfig`)

/** Issues a client certificate and writes a kubeconfig with it. Returns the kubeconfig's path. */
export const writeKubeconfig = async (
  plan: ClusterPlan,
  user: string,
  login: string,
  group: string,
): Promise<string> => {
  const file = kubeconfigOf(plan.directory, user)
  const client = await plan.pki.client(user, login, group)
  const text = renderKubeconfig(`ambassador-${plan.name}`, serverUrl(plan.addresses), plan.pki.ca, client)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

/** etcd. Nothing is flushed to the disk: a cluster that did not end well is made anew. */
export const etcd = (plan: ClusterPlan): DaemonPlan => ({
  name: 'etcd',
  command: plan.binaries.etcd,
  args: [
    `--data-dir=${join(plan.directory, 'etcd')}`,
    '--unsafe-no-fsync',
    '--listen-client-urls=http://127.0.0.1:2379',
    '--advertise-client-urls=http://127.0.0.1:2379',
    '--listen-peer-urls=http://127.0.0.1:2380',
    '--log-level=warn',
  ],
})

/** The API server, with certificates of its own. */
export const apiServer = async (plan: ClusterPlan, serviceAccounts: KeyPair): Promise<DaemonPlan> => {
  const { ca } = plan.pki
  const [serving, kubelet] = await Promise.all([
    plan.pki.server('kube-apiserver', [
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local',
      'localhost',
      '127.0.0.1',
      API_SERVICE_IP,
      plan.addresses.nodes[0]!,
    ]),
    plan.pki.client('kube-apiserver-kubelet-client', 'kube-apiserver-kubelet-client', 'system:masters'),
  ])
  return {
    name: 'kube-apiserver',
    command: plan.binaries['kube-apiserver'],
    args: [
      '--etcd-servers=http://127.0.0.1:2379',
      `--advertise-address=${plan.addresses.nodes[0]}`,
      '--secure-port=6443',
      `--service-cluster-ip-range=${SERVICE_CIDR}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      // Pods get their zone from their node, as they do from Kubernetes 1.35 on.
      '--feature-gates=PodTopologyLabelsAdmission=true',
      '--allow-privileged=true',
      `--client-ca-file=${ca.certificate}`,
      `--tls-cert-file=${serving.certificate}`,
      `--tls-private-key-file=${serving.key}`,
      `--kubelet-client-certificate=${kubelet.certificate}`,
      `--kubelet-client-key=${kubelet.key}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--service-account-key-file=${serviceAccounts.certificate}`,
      `--service-account-signing-key-file=${serviceAccounts.key}`,
      '--profiling=false',
    ],
  }
}

/** The controllers. There is one of each process, so nobody waits for a lease. */
export const controllerManager = async (plan: ClusterPlan, serviceAccounts: KeyPair): Promise<DaemonPlan> => {
  const kubeconfig = await writeKubeconfig(
    plan,
    'controller-manager',
    'system:kube-controller-manager',
    'system:kube-controller-manager',
  )
  return {
    name: 'kube-controller-manager',
    command: plan.binaries['kube-controller-manager'],
    args: [
      `--kubeconfig=${kubeconfig}`,
      '--leader-elect=false',
      '--use-service-account-credentials',
      `--service-account-private-key-file=${serviceAccounts.key}`,
      `--root-ca-file=${plan.pki.ca.certificate}`,
      `--cluster-signing-cert-file=${plan.pki.ca.certificate}`,
      `--cluster-signing-key-file=${plan.pki.ca.key}`,
      `--cluster-cidr=${plan.addresses.allPods}`,
      '--profiling=false',
    ],
  }
}

export const scheduler = async (plan: ClusterPlan): Promise<DaemonPlan> => {
  const kubeconfig = await writeKubeconfig(plan, 'scheduler', 'system:kube-scheduler', 'system:kube-scheduler')
  return {
    name: 'kube-scheduler',
    command: plan.binaries['kube-scheduler'],
    args: [`--kubeconfig=${kubeconfig}`, '--leader-elect=false', '--profiling=false'],
  }
}

/** The cluster's DNS server. It runs beside the API server and not in a pod, so that it needs no image. */
export const dnsServer = (plan: ClusterPlan, adminKubeconfig: string): DaemonPlan => {
  const file = join(plan.directory, 'Corefile')
  writeFileSync(file, renderCorefile(plan.addresses.nodes[0]!, adminKubeconfig))
  return { name: 'coredns', command: plan.binaries.coredns, args: ['-conf', file] }
}

/** Answers for the cluster's own names and says of every other that it does not exist: there is no way to the outside. */
export const renderCorefile = (address: string, kubeconfig: string): string => `cluster.local in-addr.arpa {
  bind ${address}
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig ${kubeconfig}
    ttl 5
  }
}
. {
  bind ${address}
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
`

/** Service by which pods reach the DNS server: without a selector, since the server is no pod. */
export const dnsObjects = (address: string): readonly object[] => [
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kube-dns', namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns' } },
    spec: {
      clusterIP: DNS_SERVICE_IP,
      ports: [
        { name: 'dns', protocol: 'UDP', port: 53, targetPort: 53 },
        { name: 'dns-tcp', protocol: 'TCP', port: 53, targetPort: 53 },
      ],
    },
  },
  {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'kube-dns',
      namespace: 'kube-system',
      labels: { 'kubernetes.io/service-name': 'kube-dns', 'endpointslice.kubernetes.io/managed-by': 'ambassador-test' },
    },
    addressType: 'IPv4',
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
    ports: [
      { name: 'dns', protocol: 'UDP', port: 53 },
      { name: 'dns-tcp', protocol: 'TCP', port: 53 },
    ],
  },
]
