/** Debian packages of which a cluster is made, beside what is built from Go modules. */

export { ensurePackages } from '../../build/machine/packages.ts'

/** Each is looked for as a program first, so that those of another origin count. */
export const CLUSTER_PACKAGES = [
  'ca-certificates',
  'conntrack',
  'containerd',
  'containernetworking-plugins',
  'iproute2',
  'iptables',
  'openssl',
  'runc',
  'util-linux',
] as const
