/** The order in which a cluster comes up, each step waiting for what it needs and for nothing else. */

import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { runDirectory } from '../../build/machine/cache.ts'
import { CommandError } from '../../build/machine/exec.ts'
import type { Progress } from '../../build/machine/progress.ts'
import { ApiError } from '../../operator/kube/errors.ts'
import { binaries } from './build.ts'
import { makeCgroup } from './cgroup.ts'
import { ask, find, forget, type Json } from './client.ts'
import {
  apiServer,
  type ClusterPlan,
  controllerManager,
  type DaemonPlan,
  dnsObjects,
  dnsServer,
  etcd,
  kubeconfigOf,
  scheduler,
  writeKubeconfig,
} from './control-plane.ts'
import { isAlive, killAll, startDaemon } from './daemons.ts'
import { importImage } from './images.ts'
import { addressesOf, joinSecondNode, joinToHost, loadKernelModules, namespaceOf, takeSlot } from './network.ts'
import { containerd, kubelet, kubeProxy, nodePlan } from './node.ts'
import { Pki } from './pki.ts'
import { type ClusterState, writeState } from './state.ts'
import { PROGRAMS } from './versions.ts'

/** Told by what a cluster is made of. The number counts changes of the configuration that a running cluster cannot follow. */
export const RECIPE = ['2', ...Object.values(PROGRAMS).map(({ name, version }) => `${name} ${version}`)].join(', ')

const PATIENCE_MS = 120_000
const REQUEST_MS = 10_000

/** Makes a cluster. The name must be free. */
export const createCluster = async (name: string, nodes: number, pause: string, progress: Progress): Promise<void> => {
  const slot = await takeSlot()
  const site = new Site({ name, slot, recipe: RECIPE, daemons: {}, nodes: [], isComplete: false })
  site.save({})
  await progress.step('network, certificates', async () => {
    await loadKernelModules()
    await Promise.all([joinToHost(slot), site.plan.pki.createAuthority()])
  })
  await progress.step('control plane', () => startControlPlane(site))
  await progress.step('first node', () => startNode(site, pause))
  if (nodes > 1) await progress.step('second node', () => startNode(site, pause))
}

/** Starts one node more in a running cluster. */
export const addNode = (state: ClusterState, pause: string): Promise<void> => startNode(new Site(state), pause)

/**
 * Kills the API server of a running cluster and starts it again with the same arguments, once `meanwhile` is over. Resolves when it
 * is ready; nothing else is restarted.
 */
export const restartApiServer = async (state: ClusterState, meanwhile: () => Promise<void>): Promise<void> => {
  const site = new Site(state)
  const name = 'kube-apiserver'
  const daemon = state.daemons[name]
  if (daemon === undefined || !isAlive(daemon)) throw new Error(`cluster '${state.name}': ${name} does not run`)
  const [command, ...args] = readFileSync(`/proc/${daemon.pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  await killAll(() => (isAlive(daemon) ? [daemon.pid] : []), name)
  try {
    await meanwhile()
  } finally {
    await site.start({ name, command: command!, args })
  }
  await site.until('API server is ready', () => site.isServed())
}

/** True when every process runs, the API server is ready and so are all nodes. A busy machine may make them late, so that is waited for, `patienceMs` at most; an ended process is not. */
export const isHealthy = async (state: ClusterState, patienceMs: number = 20_000): Promise<boolean> => {
  if (!state.isComplete) return false
  const site = new Site(state)
  const deadline = Date.now() + patienceMs
  while (Object.values(state.daemons).every(isAlive)) {
    if (await answers(site)) return true
    if (Date.now() >= deadline) return false
    await sleep(250)
  }
  return false
}

const answers = async (site: Site): Promise<boolean> => {
  try {
    await site.isServed()
    return (await Promise.all(site.state.nodes.map((node) => isReady(site, node)))).every(Boolean)
  } catch (error) {
    if (error instanceof ApiError) return false
    throw error
  }
}

const startControlPlane = async (site: Site): Promise<void> => {
  const { plan } = site
  await site.start(etcd(plan))
  const serviceAccounts = await plan.pki.createKey('service-accounts')
  const admin = await writeKubeconfig(plan, 'admin', 'kubernetes-admin', 'system:masters')
  await site.start(await apiServer(plan, serviceAccounts))
  const others = [await controllerManager(plan, serviceAccounts), await scheduler(plan)]
  forget(admin)
  await site.until('API server is ready', () => site.isServed())
  await Promise.all(others.map((daemon) => site.start(daemon)))
  // A server that has just become ready may not have made the namespace yet, or know no addresses of Services.
  for (const object of dnsObjects(plan.addresses.nodes[0]!)) await site.until('DNS is known', () => site.create(object))
  await site.start(dnsServer(plan, admin))
}

const startNode = async (site: Site, pause: string): Promise<void> => {
  const number = site.state.nodes.length
  const { plan, slot } = site
  const node = nodePlan(plan.directory, slot, number)
  site.save({ nodes: [...site.state.nodes, node.name], isComplete: false })
  if (number > 0) await joinSecondNode(slot)
  mkdirSync(node.directory, { recursive: true })
  makeCgroup(node.cgroup)
  await site.start(await containerd(plan, node), number)
  await site.until(`containerd of ${node.name} answers`, async () => {
    if (!existsSync(node.containerdSocket)) throw new NotYet('containerd has no socket')
    await importImage(node, pause)
  })
  await oneAtATime(async () => {
    await site.start(await kubelet(plan, node), number)
    await site.start(await kubeProxy(plan, node), number)
    await site.until(`${node.name} is ready`, async () => {
      if (!(await isReady(site, node.name))) throw new NotYet(`${node.name} is not ready`)
    })
  })
  await site.until('service account of pods exists', async () => {
    if ((await site.find('/api/v1/namespaces/default/serviceaccounts/default')) === undefined)
      throw new NotYet('the service account of pods does not exist')
  })
  site.save({ isComplete: true })
}

let lastStart: Promise<void> = Promise.resolve()

/**
 * Kubelets of one machine share the socket of device plugins, whose path cannot be chosen. Each removes it and makes it anew, and one
 * that finds it made by another in between ends.
 */
const oneAtATime = (start: () => Promise<void>): Promise<void> => {
  const mine = lastStart.then(start)
  lastStart = mine.catch(() => {})
  return mine
}

const isReady = async (site: Site, node: string): Promise<boolean> => {
  const found = await site.find(`/api/v1/nodes/${node}`)
  return found?.status?.conditions?.find(({ type }: Json) => type === 'Ready')?.status === 'True'
}

/** Something is not there yet that will be. */
class NotYet extends Error {
  override readonly name = 'NotYet'
}

/** A cluster in the making: its plan, its state on disk, and its daemons. */
class Site {
  state: ClusterState
  readonly plan: ClusterPlan
  readonly slot: number
  readonly #logs: string

  constructor(state: ClusterState) {
    const directory = runDirectory(state.name)
    this.state = state
    this.slot = state.slot
    this.#logs = join(directory, 'logs')
    this.plan = {
      name: state.name,
      directory,
      addresses: addressesOf(state.slot),
      binaries: binaries(),
      pki: new Pki(join(directory, 'pki')),
    }
  }

  save(change: Partial<ClusterState>): void {
    mkdirSync(this.#logs, { recursive: true })
    this.state = { ...this.state, ...change }
    writeState(this.state)
  }

  /** Starts a daemon in the namespace of a node, the first by default. */
  async start({ name, command, args }: DaemonPlan, node: number = 0): Promise<void> {
    const daemon = await startDaemon({
      name,
      command,
      args,
      logFile: this.#logFile(name),
      namespace: namespaceOf(this.slot, node),
      owner: this.plan.directory,
    })
    this.save({ daemons: { ...this.state.daemons, [name]: daemon } })
  }

  /** Resolves when the API server says that it is ready. @throws {ApiError} */
  async isServed(): Promise<void> {
    const client = await ask(kubeconfigOf(this.plan.directory))
    // The answer is a word and no document, and its head says it all.
    const answer = await client.open({ path: '/readyz', timeoutMs: REQUEST_MS })
    answer.on('error', () => {}).resume()
  }

  /** An object; undefined when there is none. @throws {ApiError} */
  find(path: string): Promise<Json> {
    return find(kubeconfigOf(this.plan.directory), path, REQUEST_MS)
  }

  /** Makes an object of a namespace, if there is none of its name. @throws {ApiError} */
  async create(object: Json): Promise<void> {
    const { apiVersion, kind, metadata } = object
    const group = apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`
    const path = `${group}/namespaces/${metadata.namespace}/${kind.toLowerCase()}s`
    try {
      await (await ask(kubeconfigOf(this.plan.directory))).request({ method: 'POST', path, body: object })
    } catch (error) {
      if (!(error instanceof ApiError && error.reason === 'AlreadyExists')) throw error
    }
  }

  /** Tries until `work` no longer fails as something does that is not there yet. Gives up after two minutes, or as soon as a daemon has ended. */
  async until(what: string, work: () => Promise<unknown>): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS
    for (;;) {
      try {
        await work()
        return
      } catch (error) {
        if (![ApiError, CommandError, NotYet].some((each) => error instanceof each)) throw error
        this.#checkDaemons()
        if (Date.now() > deadline) {
          throw new Error(
            `cluster '${this.plan.name}': waited ${PATIENCE_MS / 1000} s in vain until ${what}, see ${this.#logs}`,
            {
              cause: error,
            },
          )
        }
      }
      await sleep(50)
    }
  }

  #checkDaemons(): void {
    const dead = Object.values(this.state.daemons).find((daemon) => !isAlive(daemon))
    if (dead === undefined) return
    const said = readFileSync(this.#logFile(dead.name), 'utf8').trim().split('\n').slice(-8).join('\n  ')
    throw new Error(`cluster '${this.plan.name}': ${dead.name} has ended, it said:\n  ${said}`)
  }

  #logFile(daemon: string): string {
    return join(this.#logs, `${daemon}.log`)
  }
}
