/** The page of the admin port: one document with its style and script, which asks /upstreams every two seconds. */

const STYLE = `
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1c2430; --quiet: #5b6675; --line: #e1e5ea;
  --good: #1a7f37; --bad: #c4232b; --warn: #8a5a00; --tint: #0b5cad; --bad-soft: #fdecec; --warn-soft: #fff4dc; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1319; --card: #181e27; --text: #e6ebf2; --quiet: #9aa6b5; --line: #2b3440;
  --good: #4cc26a; --bad: #ff7b78; --warn: #e3ae3f; --tint: #7ab7f5; --bad-soft: #3a1c1f; --warn-soft: #352a12; } }
* { box-sizing: border-box; }
body { margin: 0; overflow-wrap: anywhere; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .9rem; padding-top: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 0; } h3 { font-size: 1rem; margin: 0; }
p { margin: .15rem 0; } .quiet { color: var(--quiet); font-size: .87rem; }
.ambassador { margin: 1.6rem 0; }
.title { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem; margin: .8rem 0; }
.pill { display: inline-block; border-radius: 99px; border: 1px solid currentColor; padding: 0 .6rem; font-size: .8rem; font-weight: 600; }
.note { border-radius: 8px; padding: .5rem .8rem; margin: .6rem 0; overflow-wrap: anywhere; }
.note.bad { background: var(--bad-soft); } .note.warn { background: var(--warn-soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.5rem, 1fr)); gap: .7rem 1rem; margin: .8rem 0; }
dt { color: var(--quiet); font-size: .8rem; } dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { text-align: left; padding: .42rem .9rem .42rem 0; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--quiet); font-size: .8rem; font-weight: 500; }
tbody th { font-weight: 600; } tbody th p { font-weight: 400; } .n { text-align: right; }
.dot::before { content: ""; display: inline-block; width: .55em; height: .55em; border-radius: 50%; background: currentColor; margin-right: .45em; }
@media (max-width: 40rem) {
  thead { display: none; } tbody tr { display: block; border-top: 1px solid var(--line); padding: .5rem 0; }
  tbody th, tbody td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; text-align: right; overflow-wrap: anywhere; }
  tbody td::before { content: attr(data-name); color: var(--quiet); }
}
`

// No template literals and no innerHTML in here: what the proxy reports is put on the page as text.
const SCRIPT = `
'use strict'
const byId = (id) => document.getElementById(id)
let before = null
function el(tag, text, className) {
  const node = document.createElement(tag)
  if (text !== undefined && text !== null) node.textContent = String(text)
  if (className) node.className = className
  return node
}
function box(tag, className, ...children) {
  const node = el(tag, null, className)
  node.append(...children.filter(Boolean))
  return node
}
const count = (n) => n.toLocaleString('en')
const ms = (n) => n === null ? '–' : n >= 1000 ? (n / 1000).toFixed(1) + ' s' : (n >= 10 ? n.toFixed(0) : n.toFixed(1)) + ' ms'
function perSecond(now, then, seconds) {
  return then === undefined || seconds <= 0 ? '–' : (Math.max(0, now - then) / seconds).toFixed(1) + '/s'
}
// The bound of the bucket in which that share of the requests since then ends.
function quantile(durations, then, share) {
  const counts = durations.counts.map((n, i) => n - (then ? then.counts[i] : 0))
  const all = counts.reduce((sum, n) => sum + n, 0)
  if (all <= 0) return null
  let seen = 0
  for (let i = 0; i < counts.length; i++) {
    seen += counts[i]
    if (seen >= all * share) return i < durations.boundsMs.length ? durations.boundsMs[i] : durations.boundsMs.at(-1)
  }
  return null
}
const COLORS = { closed: 'good', open: 'bad', 'half-open': 'warn', healthy: 'good', unhealthy: 'bad', ejected: 'warn' }
const isUp = (e) => e.health === 'healthy' && (e.circuit === null || e.circuit === 'closed')
function endpoints(owner, u, old, seconds) {
  const names = ['Endpoint', 'Health', 'Circuit', 'In flight', 'Attempts', 'Failures', 'Priority', 'Weight']
  const head = el('tr')
  names.forEach((name, i) => {
    const cell = el('th', name, i > 2 ? 'n' : '')
    cell.scope = 'col'
    head.append(cell)
  })
  const body = el('tbody')
  for (const e of u.endpoints) {
    const was = old.get(owner + ' ' + u.name + ' ' + e.name + ' ' + e.host) || {}
    const label = el('th', e.name + (e.name.startsWith(e.host + ':') ? '' : ' (' + e.host + ')') + (e.zone ? ' in ' + e.zone : ''))
    label.scope = 'row'
    if (e.lastError) label.append(el('p', 'last error ' + e.lastError.at + ': ' + e.lastError.reason + ': ' + e.lastError.message, 'quiet'))
    const cells = [[e.health, 'dot ' + COLORS[e.health]], [e.circuit || 'none', e.circuit ? 'dot ' + COLORS[e.circuit] : 'quiet'], [e.active, 'n'],
      [count(e.attempts) + ' · ' + perSecond(e.attempts, was.attempts, seconds), 'n'],
      [count(e.failures) + ' · ' + perSecond(e.failures, was.failures, seconds), e.failures > was.failures ? 'n bad' : 'n'], [e.priority, 'n'], [e.weight, 'n']]
    const line = box('tr', '', label)
    cells.forEach(([text, className], i) => {
      const cell = el('td', null, className.startsWith('dot') ? '' : className)
      cell.dataset.name = names[i + 1]
      cell.append(el('span', text, className.startsWith('dot') ? className : ''))
      line.append(cell)
    })
    body.append(line)
  }
  return box('table', '', el('caption', 'Endpoints of upstream ' + u.name), box('thead', '', head), body)
}
function facts(pairs) {
  return box('dl', '', ...pairs.map(([name, text, className]) => box('div', '', el('dt', name), el('dd', text, className))))
}
function upstream(owner, u, old, seconds) {
  const was = old.get(owner + ' ' + u.name) || {}
  const up = u.endpoints.filter(isUp).length
  const state = u.endpoints.length === 0 ? 'no endpoint yet' : up + ' of ' + u.endpoints.length + ' up'
  const color = up === 0 ? 'bad' : up < u.endpoints.length ? 'warn' : 'good'
  const pairs = []
  if (u.http) {
    const last = was.http ? was.http.durations : null
    // A quiet moment says nothing: then of all requests so far.
    const since = quantile(u.http.durations, last, 1) === null ? null : last
    pairs.push(['Requests', perSecond(u.http.requests, was.http && was.http.requests, seconds)])
    pairs.push(['Failures', perSecond(u.http.failures, was.http && was.http.failures, seconds), was.http && u.http.failures > was.http.failures ? 'bad' : ''])
    pairs.push(['p50 below', ms(quantile(u.http.durations, since, 0.5))], ['p99 below', ms(quantile(u.http.durations, since, 0.99))], ['In flight', count(u.http.active)])
  }
  pairs.push(['Connections', u.connections.used + ' / ' + u.connections.max], ['Waiting', u.connections.waiting, u.connections.waiting ? 'warn' : ''])
  const failures = [u.discoveryFailure, u.tlsFailure, u.credentialFailure].filter(Boolean).map((text) => el('p', text, 'note bad'))
  return box('div', 'card', box('div', 'title', el('h3', u.name), el('span', state, 'pill ' + color)), ...failures, facts(pairs), u.endpoints.length ? endpoints(owner, u, old, seconds) : null)
}
function ambassador(a, old, seconds) {
  const name = (a.namespace ? a.namespace + '/' : '') + a.name
  const answers = Object.entries(a.answers).map(([status, n]) => status + ' × ' + count(n)).join(', ')
  const part = box('section', 'ambassador', box('div', 'title', el('h2', name), el('span', (a.protocol || 'no config') + ' on ' + (a.listening.join(', ') || 'no address'), 'quiet')),
    el('p', 'config ' + (a.hash ? a.hash.slice(0, 12) : 'none') + (a.generation === null ? '' : ', generation ' + a.generation) + (a.since ? ', since ' + a.since : '') + ' · ' + a.connections.open + ' connections, ' + a.connections.busy + ' busy · answers ' + (answers || 'none yet') + (a.rateLimited ? ' · rate-limited ' + count(a.rateLimited) : ''), 'quiet'),
    a.rejected ? el('p', 'Newest config not in force: ' + a.rejected, 'note bad') : null,
    a.lastError ? el('p', 'Last error, ' + a.lastError.at + ': ' + a.lastError.reason + ': ' + a.lastError.message, 'note warn') : null,
    ...a.upstreams.map((u) => upstream(a.name, u, old, seconds)))
  part.setAttribute('aria-label', name)
  return part
}
function index(report) {
  const all = new Map()
  for (const a of report.ambassadors) for (const u of a.upstreams) {
    all.set(a.name + ' ' + u.name, u)
    for (const e of u.endpoints) all.set(a.name + ' ' + u.name + ' ' + e.name + ' ' + e.host, e)
  }
  return all
}
// Written only when it changes: whoever listens to the page hears of a change and not of every look.
function say(id, text, className) {
  const node = byId(id)
  if (node.textContent !== text) node.textContent = text
  if (className !== undefined) node.className = className
}
function show(report, at) {
  const old = before ? before.index : new Map()
  const seconds = before ? (at - before.at) / 1000 : 0
  const all = report.ambassadors.flatMap((a) => a.upstreams.flatMap((u) => u.endpoints))
  const down = all.filter((e) => !isUp(e)).length
  if (report.isDraining) say('state', 'draining', 'pill warn')
  else if (down) say('state', down + ' of ' + all.length + ' endpoints down', 'pill bad')
  else say('state', 'serving', 'pill good')
  say('about', 'version ' + report.version + (report.pod ? ' · pod ' + report.pod : '') + ' · since ' + report.startedAt + ' · log level ' + report.logLevel)
  byId('root').replaceChildren(...report.ambassadors.map((a) => ambassador(a, old, seconds)))
  before = { at, index: index(report) }
}
async function poll() {
  try {
    const answer = await fetch('upstreams', { cache: 'no-store' })
    if (!answer.ok) throw new Error('status ' + answer.status)
    show(await answer.json(), performance.now())
  } catch (error) {
    say('state', 'the sidecar does not answer', 'pill bad')
    say('about', error.message)
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
    policy: `default-src 'none'; style-src ${sha256(STYLE)}; script-src ${sha256(SCRIPT)}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  }
}

// The empty icon keeps browsers from asking for /favicon.ico.
const HTML = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ambassador</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
<header><h1>ambassador</h1><span id="state" class="pill" role="status" aria-live="polite">asking the sidecar</span><span id="about" class="quiet"></span></header>
<main id="root"></main>
<script>${SCRIPT}</script>
</html>
`
