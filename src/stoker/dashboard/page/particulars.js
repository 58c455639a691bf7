/** What happened to a run, how it is set, and what lies in its directory. */

import { get } from "./api.js"
import { copyText, h, put, renew, say } from "./dom.js"
import { ABSENT, bytes, date, duration, number, plural } from "./format.js"

const SIZE = 100

/** Events, the newest first. */
export function makeEvents(element, first) {
  let info = first
  let page = 0
  let kind = ""
  let isOver = false
  const kinds = new Set()
  const turn = (next) => { page = next; ask() }
  const pick = h("select", { class: "field", "aria-label": "Kind", onchange: () => { kind = pick.value; turn(0) } })
  const count = h("span", { class: "muted", role: "status" })
  const list = h("ol", { class: "panel events" })
  const before = h("button", { onclick: () => turn(page - 1) }, "Previous")
  const after = h("button", { onclick: () => turn(page + 1) }, "Next")
  const pager = h("div", { class: "toolbar pager" }, before, after)
  put(element, h("div", { class: "toolbar run-bar" }, pick, h("span", { class: "grow" }), count), list, pager)

  async function ask() {
    try {
      const answer = await get(`api/runs/${info.id}/events`, { page, kind })
      if (!isOver) draw(answer)
    } catch (problem) {
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) put(list, h("li", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows: events }) {
    for (const event of events) kinds.add(event.kind)
    const options = [["", "All events"], ...[...kinds].sort().map((one) => [one, one.replaceAll("_", " ")])]
    renew(pick, options, () => options.map(([value, text]) => h("option", { value }, text)))
    pick.value = kind
    say(count, plural(n, "event"))
    put(list, events.length ? events.map(line) : h("li", { class: "table-empty" }, "Nothing is recorded."))
    before.disabled = page <= 0
    after.disabled = (page + 1) * SIZE >= n
    pager.hidden = n <= SIZE
  }

  function line(event) {
    const when = info.started_at ? `+${duration(event.time - info.started_at)}` : date(event.time)
    return h("li", { class: `event ${event.level}` },
      h("span", { class: "event-mark", role: "img", "aria-label": event.level }),
      h("time", { title: date(event.time) }, when),
      h("span", { class: "event-step" }, `step ${number(event.total_steps)}`),
      h("span", { class: "event-text", title: event.kind.replaceAll("_", " ") }, event.sentence))
  }

  return {
    take: ask,
    update(next) {
      info = next
      if (page === 0) ask()
    },
    destroy() { isOver = true },
  }
}

/** Settings, flat and filtered. */
export function makeConfig(element, first) {
  let rows = []
  let config = null
  const search = h("input", {
    class: "field search", type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", oninput: draw,
  })
  const copy = h("button", { onclick: copyJson }, "Copy as JSON")
  const table = h("div", { class: "panel table-box" })
  put(element, h("div", { class: "toolbar run-bar" }, search, h("span", { class: "grow" }), copy), table)

  async function copyJson() {
    await copyText(JSON.stringify(config, null, 2))
    put(copy, "Copied")
    setTimeout(() => put(copy, "Copy as JSON"), 1500)
  }

  function draw() {
    const text = search.value.toLowerCase()
    const found = rows.filter(([key, value]) => `${key} ${value}`.toLowerCase().includes(text))
    const nothing = rows.length ? "No setting matches." : "This run recorded no settings."
    renew(table, [rows.length, found], () => (found.length
      ? h("table", { class: "settings" }, h("tbody", {}, found.map(setting))) : h("p", { class: "table-empty" }, nothing)))
  }

  function setting([key, value]) {
    const cut = key.lastIndexOf(".") + 1
    return h("tr", {},
      h("th", { scope: "row" }, cut ? h("span", { class: "muted" }, key.slice(0, cut)) : null, key.slice(cut)),
      h("td", { class: value === "null" ? "muted mono" : "mono" }, value))
  }

  function update(info) {
    config = info.config
    rows = [...flat(config ?? {})]
    draw()
  }

  update(first)
  return { keys: [["/", "Filter settings", () => search.focus()]], update, destroy() {} }
}

function* flat(value, before = "") {
  for (const [key, one] of Object.entries(value)) {
    const isObject = one !== null && typeof one === "object" && !Array.isArray(one) && Object.keys(one).length > 0
    if (isObject) yield* flat(one, `${before}${key}.`)
    else yield [before + key, typeof one === "string" ? one : JSON.stringify(one)]
  }
}

/** The directory of a run and the attempts that wrote it. */
export function makeFiles(element, first) {
  function update({ attempts, files, path, status }) {
    const total = files.reduce((sum, file) => sum + file.n_bytes, 0)
    const ended = (attempt) => attempt.ended ?? (status === "live" ? "still running" : ABSENT)
    renew(element, [attempts, files, status], () => [
      block("Attempts", null, null, [["Attempt", "right"], ["Began", ""], ["From step", "right"], ["Ended", "wrap"]],
        attempts.map((one) => [one.number, date(one.started_at), number(one.from_steps), ended(one)])),
      block("Files", `${plural(files.length, "file")}, ${bytes(total)}`, h("p", { class: "mono code-line" }, path),
        [["File", "mono wrap"], ["Size", "right"], ["Changed", "right muted"]],
        files.map((file) => [file.path, bytes(file.n_bytes), date(file.changed_at)])),
    ])
  }

  update(first)
  return { update, destroy() {} }
}

/** A table with a title; a box that may scroll has to be reached by the tab key. */
export function block(title, more, note, columns, rows) {
  const head = ([text, kind]) => h("th", { class: kind.includes("right") ? "right" : "" }, text)
  return h("section", { class: "block" },
    h("h2", { class: "block-title" }, title, more ? h("span", { class: "muted" }, ` ${more}`) : null), note,
    h("div", { class: "panel table-box", tabindex: 0, role: "region", "aria-label": title }, h("table", {},
      h("thead", {}, h("tr", {}, columns.map(head))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((text, at) => h("td", { class: columns[at][1] }, text))))))))
}
