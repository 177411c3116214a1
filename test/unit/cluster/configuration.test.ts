/** What the parts of a cluster are told, where a mistake would only show as a cluster that does not come up. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { cgroupMounts } from '../../cluster/cgroup.ts'
import { dnsObjects, renderCorefile } from '../../cluster/control-plane.ts'
import { isPresent, unseenImages } from '../../cluster/images.ts'
import { addressesOf, cniConfig, MAX_NODES, namespaceOf, SERVICE_CIDR, SLOTS } from '../../cluster/network.ts'
import { kubeletConfig, nodePlan, renderContainerdConfig } from '../../cluster/node.ts'
import { imageConfig } from '../../cluster/pause.ts'
import { renderExtensions } from '../../cluster/pki.ts'
import { mountsBelow } from '../../cluster/teardown.ts'

describe('addressesOf', () => {
  const slots = Array.from({ length: SLOTS }, (_, slot) => addressesOf(slot))

  it('gives every cluster addresses of its own', () => {
    const all = slots.flatMap(({ host, nodes, pods, nodeLink }) => [host, ...nodes, ...pods, nodeLink])
    assert.equal(new Set(all).size, all.length)
  })

  it('keeps pods out of the range of Services', () => {
    const services = SERVICE_CIDR.replace(/0\.0\/16$/, '')
    for (const { allPods } of slots) assert.ok(!allPods.startsWith(services), allPods)
  })

  it('covers the pods of every node', () => {
    for (const { pods, allPods } of slots) {
      assert.equal(pods.length, MAX_NODES)
      for (const range of pods) assert.ok(range.startsWith(allPods.replace(/0\.0\/16$/, '')), range)
    }
  })
})

describe('namespaceOf', () => {
  it('is a name that an interface may have: fifteen letters at most', () => {
    for (let node = 0; node < MAX_NODES; node++) assert.ok(namespaceOf(SLOTS - 1, node).length <= 15)
  })
})

describe('nodePlan', () => {
  it('shares no folder and no control group between two nodes or two clusters', () => {
    const plans = [nodePlan('/run/a', 0, 0), nodePlan('/run/a', 0, 1), nodePlan('/run/b', 1, 0)]
    assert.deepEqual(
      plans.map(({ name, directory, cgroup }) => [name, directory, cgroup]),
      [
        ['node1', '/run/a/node1', '/amb0-node1'],
        ['node2', '/run/a/node2', '/amb0-node2'],
        ['node1', '/run/b/node1', '/amb1-node1'],
      ],
    )
  })
})

describe('renderContainerdConfig', () => {
  it('keeps everything of a node in its folder, also the network namespaces of pods', () => {
    const text = renderContainerdConfig(nodePlan('/run/a', 0, 0), 'native')
    assert.match(text, /^version = 2$/m)
    assert.match(text, /^root = "\/run\/a\/node1\/containerd"$/m)
    assert.match(text, /^state = "\/run\/a\/node1\/containerd-state"$/m)
    assert.match(text, /^netns_mounts_under_state_dir = true$/m)
    assert.match(text, /^restrict_oom_score_adj = true$/m)
    assert.match(text, /^snapshotter = "native"$/m)
  })
})

describe('kubeletConfig', () => {
  it('keeps logs and control groups apart from those of other kubelets on the machine', () => {
    const config = kubeletConfig(nodePlan('/run/a', 3, 1))
    assert.equal(config['podLogsDir'], '/run/a/node2/logs')
    assert.equal(config['cgroupRoot'], '/amb3-node2')
    assert.equal(config['imageGCHighThresholdPercent'], 100)
  })
})

describe('cniConfig', () => {
  it('gives pods addresses of their node only', () => {
    const { plugins } = cniConfig('10.244.1.0/24', '/run/ipam') as { plugins: { type: string; ipam?: object }[] }
    assert.deepEqual(plugins[0]?.ipam, {
      type: 'host-local',
      dataDir: '/run/ipam',
      ranges: [[{ subnet: '10.244.1.0/24' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    })
  })
})

describe('the DNS server', () => {
  it('answers where its Service points to', () => {
    const objects = dnsObjects('172.31.255.2') as { kind: string; endpoints?: { addresses: string[] }[] }[]
    const slice = objects.find(({ kind }) => kind === 'EndpointSlice')
    assert.deepEqual(slice?.endpoints?.[0]?.addresses, ['172.31.255.2'])
    assert.equal([...renderCorefile('172.31.255.2', '/x').matchAll(/bind 172\.31\.255\.2/g)].length, 2)
  })
})

describe('renderExtensions', () => {
  it('tells addresses from names', () => {
    assert.match(
      renderExtensions('serverAuth', ['kubernetes', '10.96.0.1']),
      /^subjectAltName = DNS:kubernetes,IP:10\.96\.0\.1$/m,
    )
  })

  it('names nobody in a client certificate', () => {
    assert.doesNotMatch(renderExtensions('clientAuth', []), /subjectAltName/)
  })
})

describe('imageConfig', () => {
  it("has the name that containers use for Node's x64", () => {
    const config = imageConfig('x64', 'abc', ['/pause']) as { architecture: string; rootfs: object }
    assert.equal(config.architecture, 'amd64')
    assert.deepEqual(config.rootfs, { type: 'layers', diff_ids: ['sha256:abc'] })
    assert.equal((imageConfig('arm64', 'abc', []) as { architecture: string }).architecture, 'arm64')
  })
})

describe('isPresent', () => {
  const list = (tagged: string) =>
    `REF TYPE DIGEST\nlocalhost/a:dev x sha256:${tagged} 1 MiB\nsha256:1d x sha256:m1 1 MiB\nsha256:2d x sha256:m2 1 MiB\n`

  it('wants the tag to stand for the very image', () => {
    assert.equal(isPresent({ id: '1d', tags: ['localhost/a:dev'] }, list('m1')), true)
    assert.equal(isPresent({ id: '1d', tags: ['localhost/a:dev'] }, list('m2')), false)
    assert.equal(isPresent({ id: '3d', tags: ['localhost/a:dev'] }, list('m1')), false)
  })
})

describe('unseenImages', () => {
  it('names those that containerd has not shown to the kubelet yet', () => {
    const list = [
      'REF TYPE DIGEST SIZE PLATFORMS LABELS',
      'localhost/a:dev x sha256:1 1 MiB linux/amd64 io.cri-containerd.image=managed',
      'localhost/b:dev x sha256:2 1 MiB linux/amd64 -',
      '',
    ]
    assert.deepEqual(unseenImages(list.join('\n')), ['localhost/b:dev'])
  })
})

describe('cgroupMounts', () => {
  it('tells the versions apart', () => {
    const mounts = [
      'tmpfs /sys/fs/cgroup tmpfs rw 0 0',
      'cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0',
      'cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0',
    ]
    assert.deepEqual(cgroupMounts(mounts.join('\n')), [
      { path: '/sys/fs/cgroup/cpu', version: 1 },
      { path: '/sys/fs/cgroup/unified', version: 2 },
    ])
  })
})

describe('mountsBelow', () => {
  it('lists the innermost first, reads escaped blanks, and leaves a folder of a longer name alone', () => {
    const mounts = [
      'tmpfs /run/dev/a tmpfs rw 0 0',
      'tmpfs /run/dev/a/b\\040c tmpfs rw 0 0',
      'tmpfs /run/dev2/a tmpfs rw 0 0',
      'tmpfs /run/dev tmpfs rw 0 0',
    ]
    assert.deepEqual(mountsBelow(mounts.join('\n'), '/run/dev'), ['/run/dev/a/b c', '/run/dev/a'])
  })
})
