/** How a run is set, and what lies in its directory. */

import { copyText, h, put, renew } from "./dom.js"
import { ABSENT, bytes, date, number, plural } from "./format.js"

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
