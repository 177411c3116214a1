/** Which packages are missing, what a person is told, and that no service is started by an installation. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { notInstalled, PackagesMissing, withoutServices } from '../../../build/machine/packages.ts'

describe('notInstalled', () => {
  it('takes only the state installed for installed', () => {
    const states = 'runc installed\nhaproxy config-files\nnginx half-installed\n'
    assert.deepEqual(notInstalled(['runc', 'haproxy', 'nginx', 'redis'], states), ['haproxy', 'nginx', 'redis'])
  })
})

describe('PackagesMissing', () => {
  const command = 'apt-get update && apt-get install -y --no-install-recommends runc iptables'

  it('tells root the command', () => {
    const error = new PackagesMissing(['runc', 'iptables'], { hasApt: true, isRoot: true })
    assert.equal(error.message, `packages runc, iptables are missing, run: ${command}`)
  })

  it('tells others the command with sudo', () => {
    const error = new PackagesMissing(['runc', 'iptables'], { hasApt: true, isRoot: false })
    assert.equal(error.message, `packages runc, iptables are missing, run: sudo sh -c '${command}'`)
  })

  it('names no command where there is no apt', () => {
    const error = new PackagesMissing(['runc'], { hasApt: false, isRoot: true })
    assert.match(error.message, /^packages runc are missing, this is not Debian or Ubuntu: install /)
  })
})

describe('withoutServices', () => {
  let directory: string
  let policy: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ambassador-policy-'))
    policy = join(directory, 'policy-rc.d')
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  const verdict = (): number => {
    try {
      execFileSync(policy)
      return 0
    } catch (error) {
      return (error as { status: number }).status
    }
  }

  it('forbids every service while it works, and leaves nothing behind', async () => {
    assert.equal(await withoutServices(async () => verdict(), policy), 101)
    assert.equal(existsSync(policy), false)
  })

  it('puts back what was there, also after a failure', async () => {
    writeFileSync(policy, "the machine's own")
    await assert.rejects(
      withoutServices(() => Promise.reject(new Error('apt-get failed')), policy),
      /apt-get failed/,
    )
    assert.equal(readFileSync(policy, 'utf8'), "the machine's own")
    assert.equal(existsSync(`${policy}.ambassador-saved`), false)
  })

  it('puts back what a killed installation had moved away', async () => {
    writeFileSync(policy, "the machine's own")
    await withoutServices(async () => {
      // What the next process finds when this one is killed here.
      const killed = { policy: readFileSync(policy), saved: readFileSync(`${policy}.ambassador-saved`) }
      await withoutServices(async () => {}, policy)
      assert.equal(readFileSync(policy, 'utf8'), "the machine's own")
      writeFileSync(policy, killed.policy)
      writeFileSync(`${policy}.ambassador-saved`, killed.saved)
    }, policy)
    assert.equal(readFileSync(policy, 'utf8'), "the machine's own")
  })
})
