/** What happened to a run, how it is set, and what lies in its directory. */

import { get } from "./api.js"
import { copyText, h, put, renew, say } from "./dom.js"
import { ABSENT, bytes, date, duration, number, plural } from "./format.js"

const SIZE = 100

/** Events, the newest first. */
export function makeEvents(element, first) {
  const id = first.id
  let info = first
  let page = 0
  let kind = ""
  let isOver = false
  const kinds = new Set()
  const pick = h("select", { class: "field", "aria-label": "Kind", onchange: () => { kind = pick.value; page = 0; ask() } })
  const count = h("span", { class: "muted", role: "status" })
  const list = h("ol", { class: "panel events" })
  const before = h("button", { onclick: () => { page -= 1; ask() } }, "Previous")
  const after = h("button", { onclick: () => { page += 1; ask() } }, "Next")
  put(element, h("div", { class: "toolbar run-bar" }, pick, h("span", { class: "grow" }), count), list, h("div", { class: "toolbar pager" }, before, after))

  async function ask() {
    let answer
    try {
      answer = await get(`api/runs/${id}/events`, { page, kind })
    } catch (problem) {
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) put(list, h("li", { class: "table-empty" }, problem.message))
      return
    }
    if (isOver) return
    for (const event of answer.events) kinds.add(event.kind)
    const options = [["", "All events"], ...[...kinds].sort().map((one) => [one, one.replaceAll("_", " ")])]
    renew(pick, options, () => options.map(([value, text]) => h("option", { value }, text)))
    pick.value = kind
    say(count, plural(answer.n, "event"))
    put(list, answer.events.length ? answer.events.map(line) : h("li", { class: "table-empty" }, "Nothing is recorded."))
    before.disabled = page <= 0
    after.disabled = (page + 1) * SIZE >= answer.n
    before.parentElement.hidden = answer.n <= SIZE
  }

  function line(event) {
    return h("li", { class: `event ${event.level}` },
      h("span", { class: "event-mark", role: "img", "aria-label": event.level }),
      h("time", { title: date(event.time) }, info.started_at ? `+${duration(event.time - info.started_at)}` : date(event.time)),
      h("span", { class: "event-step" }, `step ${number(event.total_steps)}`),
      h("span", { class: "event-text", title: event.kind.replaceAll("_", " ") }, event.sentence))
  }

  return { take: ask, update(next) { info = next; if (page === 0) ask() }, destroy() { isOver = true } }
}

/** Settings, flat and filtered. */
export function makeConfig(element, first) {
  let rows = []
  const search = h("input", { class: "field search", type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", oninput: draw })
  const copy = h("button", { onclick: copyJson }, "Copy as JSON")
  const table = h("div", { class: "panel table-box" })
  put(element, h("div", { class: "toolbar run-bar" }, search, h("span", { class: "grow" }), copy), table)

  async function copyJson() {
    await copyText(JSON.stringify(first.config, null, 2))
    put(copy, "Copied")
    setTimeout(() => put(copy, "Copy as JSON"), 1500)
  }

  function draw() {
    const text = search.value.toLowerCase()
    const shown = rows.filter(([key, value]) => `${key} ${value}`.toLowerCase().includes(text))
    put(table, shown.length ? h("table", { class: "settings" }, h("tbody", {}, shown.map(([key, value]) => {
      const cut = key.lastIndexOf(".")
      return h("tr", {}, h("th", { scope: "row" }, cut > 0 ? h("span", { class: "muted" }, key.slice(0, cut + 1)) : null, key.slice(cut + 1)), h("td", { class: value === "null" ? "muted mono" : "mono" }, value))
    }))) : h("p", { class: "table-empty" }, rows.length ? "No setting matches." : "This run recorded no settings."))
  }

  function update(info) {
    const next = [...flat(info.config ?? {})]
    if (JSON.stringify(next) === JSON.stringify(rows) && table.childElementCount) return
    rows = next
    draw()
  }

  update(first)
  return { keys: [["/", "Filter settings", () => search.focus()]], update, destroy() {} }
}

function* flat(value, before = "") {
  for (const [key, one] of Object.entries(value)) {
    if (one !== null && typeof one === "object" && !Array.isArray(one) && Object.keys(one).length) yield* flat(one, `${before}${key}.`)
    else yield [before + key, typeof one === "string" ? one : JSON.stringify(one)]
  }
}

/** The directory of a run and the attempts that wrote it. */
export function makeFiles(element, first) {
  let last = ""
  const view = {
    update(info) {
      const now = JSON.stringify([info.files, info.attempts])
      if (now === last) return
      last = now
      const total = info.files.reduce((sum, file) => sum + file.n_bytes, 0)
      put(element,
        h("section", { class: "block" }, h("h2", { class: "block-title" }, "Attempts"),
          h("div", { class: "panel table-box", tabindex: 0, role: "region", "aria-label": "Attempts" }, h("table", {},
            h("thead", {}, h("tr", {}, h("th", { class: "right" }, "Attempt"), h("th", {}, "Began"), h("th", { class: "right" }, "From step"), h("th", {}, "Ended"))),
            h("tbody", {}, info.attempts.map((attempt) => h("tr", {}, h("td", { class: "right" }, attempt.number), h("td", {}, date(attempt.started_at)),
              h("td", { class: "right" }, number(attempt.from_steps)), h("td", { class: "wrap" }, attempt.ended ?? (info.status === "live" ? "still running" : ABSENT)))))))),
        h("section", { class: "block" }, h("h2", { class: "block-title" }, "Files ", h("span", { class: "muted" }, `${plural(info.files.length, "file")}, ${bytes(total)}`)),
          h("p", { class: "mono code-line" }, info.path),
          h("div", { class: "panel table-box", tabindex: 0, role: "region", "aria-label": "Files" }, h("table", {},
            h("thead", {}, h("tr", {}, h("th", {}, "File"), h("th", { class: "right" }, "Size"), h("th", { class: "right" }, "Changed"))),
            h("tbody", {}, info.files.map((file) => h("tr", {}, h("td", { class: "mono wrap" }, file.path), h("td", { class: "right" }, bytes(file.n_bytes)), h("td", { class: "right muted" }, date(file.changed_at)))))))))
    },
    destroy() {},
  }
  view.update(first)
  return view
}
