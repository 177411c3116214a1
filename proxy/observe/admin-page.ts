/** The page of the admin port: one document with its style and script, which asks /upstreams every two seconds. */

const STYLE = `
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff7b72; --warn: #d29922; } }
body { font: 14px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.2rem; margin: 0; } h2 { font-size: 1rem; margin: 1.5rem 0 .2rem; } h3 { font-size: .9rem; margin: .8rem 0 .2rem; }
p { margin: .2rem 0; } .quiet { opacity: .7; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: normal; }
th { opacity: .7; } td.n, th.n { text-align: right; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
`

// No template literals and no innerHTML in here: what the proxy reports is put on the page as text.
const SCRIPT = `
'use strict'
const root = document.getElementById('root')
let before = null
function el(tag, text, className) {
  const node = document.createElement(tag)
  if (text !== undefined && text !== null) node.textContent = String(text)
  if (className) node.className = className
  return node
}
function row(cells, tag) {
  const line = el('tr')
  for (const [text, className] of cells) line.append(el(tag || 'td', text, className))
  return line
}
function rate(now, then, seconds) {
  return then === undefined || seconds <= 0 ? '' : (Math.max(0, now - then) / seconds).toFixed(1) + '/s'
}
const CIRCUITS = { closed: 'good', open: 'bad', 'half-open': 'warn' }
function endpointTable(owner, upstream, old, seconds) {
  const table = el('table')
  table.append(row([['endpoint'], ['host'], ['priority', 'n'], ['weight', 'n'], ['circuit'], ['health'], ['in flight', 'n'], ['attempts', 'n'], ['rate', 'n'], ['failures', 'n'], ['rate', 'n']], 'th'))
  for (const e of upstream.endpoints) {
    const was = old.get(owner + ' ' + upstream.name + ' ' + e.name + ' ' + e.host) || {}
    table.append(row([[e.name], [e.host], [e.priority, 'n'], [e.weight, 'n'], [e.circuit || 'none', CIRCUITS[e.circuit]], [e.health, e.health === 'healthy' ? '' : 'bad'], [e.active, 'n'],
      [e.attempts, 'n'], [rate(e.attempts, was.attempts, seconds), 'n'], [e.failures, e.failures ? 'n warn' : 'n'], [rate(e.failures, was.failures, seconds), 'n']]))
  }
  return table
}
function index(report) {
  const all = new Map()
  for (const a of report.ambassadors) for (const u of a.upstreams) for (const e of u.endpoints) all.set(a.name + ' ' + u.name + ' ' + e.name + ' ' + e.host, e)
  return all
}
function show(report, at) {
  const old = before ? before.index : new Map()
  const seconds = before ? (at - before.at) / 1000 : 0
  const parts = [el('p', 'version ' + report.version + (report.pod ? ', pod ' + report.pod : '') + ', since ' + report.startedAt + ', log level ' + report.logLevel, 'quiet')]
  if (report.isDraining) parts.push(el('p', 'draining', 'warn'))
  for (const a of report.ambassadors) {
    parts.push(el('h2', (a.namespace ? a.namespace + '/' : '') + a.name))
    parts.push(el('p', (a.protocol || 'no config in force') + ' on ' + (a.listening.join(', ') || 'no address') + '; config ' + (a.hash || 'none') + (a.generation === null ? '' : ', generation ' + a.generation) + (a.since ? ', since ' + a.since : '')))
    if (a.rejected) parts.push(el('p', 'newest config not in force: ' + a.rejected, 'bad'))
    if (a.lastError) parts.push(el('p', 'last error, ' + a.lastError.at + ': ' + a.lastError.reason + ': ' + a.lastError.message, 'warn'))
    const answers = Object.entries(a.answers).map(([status, count]) => status + ': ' + count).join(', ')
    parts.push(el('p', 'connections ' + a.connections.open + ' (' + a.connections.busy + ' busy); answers ' + (answers || 'none yet') + (a.rateLimited ? '; rate-limited ' + a.rateLimited : '')))
    for (const u of a.upstreams) {
      parts.push(el('h3', u.name + ': ' + u.connections.used + ' of ' + u.connections.max + ' connections, ' + u.connections.waiting + ' waiting'))
      for (const failure of [u.discoveryFailure, u.tlsFailure, u.credentialFailure]) if (failure) parts.push(el('p', failure, 'bad'))
      parts.push(endpointTable(a.name, u, old, seconds))
    }
  }
  root.replaceChildren(...parts)
  before = { at, index: index(report) }
}
async function poll() {
  try {
    const answer = await fetch('upstreams', { cache: 'no-store' })
    if (!answer.ok) throw new Error('status ' + answer.status)
    show(await answer.json(), performance.now())
  } catch (error) {
    root.replaceChildren(el('p', 'the sidecar does not answer: ' + error.message, 'bad'))
    before = null
  }
  setTimeout(poll, 2000)
}
poll()
`

/** Made for the person who asks, not at the start: OpenSSL costs a megabyte that a sidecar without TLS never needs. */
export function adminPage(): { readonly html: string; readonly policy: string } {
  const { createHash } = process.getBuiltinModule('node:crypto')
  const sha256 = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`
  return {
    html: HTML,
    // Nothing but the page's own style and script runs, and only this origin is asked.
    policy: `default-src 'none'; style-src ${sha256(STYLE)}; script-src ${sha256(SCRIPT)}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  }
}

const HTML = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ambassador</title>
<style>${STYLE}</style>
<h1>ambassador</h1>
<main id="root"><p>asking the sidecar</p></main>
<script>${SCRIPT}</script>
</html>
`
