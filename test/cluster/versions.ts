/** Which programs the cluster is made of, and how each is built from its Go module. */

/** One Go module and the programs that are built from it. */
export interface Program {
  readonly name: string
  readonly module: string
  readonly version: string
  /** Program name → package path; `.` for `source`. */
  readonly packages: Readonly<Record<string, string>>
  /** A Go file of this folder that becomes the main package, for a program that is put together here. */
  readonly source?: string
  /** Value of `-ldflags`, added to `-s -w`. */
  readonly linkerFlags: string
  readonly tags: string
  /** Arguments that make the first program tell its version, and what it must say. */
  readonly verify: Readonly<Record<string, { readonly args: readonly string[]; readonly says: string }>>
  /** What a person may expect of a cold build on two cores. */
  readonly takes: string
}

// 1.34 is the newest that accepts cgroup v1, which many build machines still have, and containerd 1.6.
const KUBERNETES_VERSION = 'v1.34.4'
const COMPONENTS = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet', 'kube-proxy'] as const
const versionPackage = 'k8s.io/component-base/version'

const kubernetes: Program = {
  name: 'kubernetes',
  module: 'k8s.io/kubernetes',
  version: KUBERNETES_VERSION,
  packages: Object.fromEntries([...COMPONENTS, 'kubectl'].map((name) => [name, `k8s.io/kubernetes/cmd/${name}`])),
  linkerFlags: [
    `-X ${versionPackage}.gitVersion=${KUBERNETES_VERSION}`,
    `-X ${versionPackage}.gitMajor=1`,
    `-X ${versionPackage}.gitMinor=34`,
  ].join(' '),
  tags: 'providerless',
  verify: {
    ...Object.fromEntries(COMPONENTS.map((name) => [name, { args: ['--version'], says: KUBERNETES_VERSION }])),
    kubectl: { args: ['version', '--client'], says: KUBERNETES_VERSION },
  },
  takes: 'built from Go modules, about 5 minutes',
}

const etcd: Program = {
  name: 'etcd',
  module: 'go.etcd.io/etcd/server/v3',
  version: 'v3.6.16',
  packages: { etcd: 'go.etcd.io/etcd/server/v3' },
  linkerFlags: '',
  tags: '',
  verify: { etcd: { args: ['--version'], says: '3.6.16' } },
  takes: 'built from Go modules, about half a minute',
}

const coredns: Program = {
  name: 'coredns',
  module: 'github.com/coredns/coredns',
  version: 'v1.15.0',
  packages: { coredns: '.' },
  source: 'coredns.go',
  linkerFlags: '',
  tags: '',
  verify: { coredns: { args: ['-version'], says: '1.15.0' } },
  takes: 'built from Go modules, about a minute',
}

const helm: Program = {
  name: 'helm',
  module: 'helm.sh/helm/v4',
  version: 'v4.3.1',
  packages: { helm: 'helm.sh/helm/v4/cmd/helm' },
  linkerFlags: '-X helm.sh/helm/v4/internal/version.version=v4.3.1',
  tags: '',
  verify: { helm: { args: ['version', '--short'], says: 'v4.3.1' } },
  takes: 'built from Go modules, about 2 minutes',
}

/** In the order in which they are built. */
export const PROGRAMS = { kubernetes, etcd, coredns, helm } as const
