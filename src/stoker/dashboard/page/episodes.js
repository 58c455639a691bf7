/** Every episode of a run as a table: sorted, filtered, a page at a time. */

import { address, get, isReport } from "./api.js"
import { choice } from "./choices.js"
import { h, put, say } from "./dom.js"
import { ABSENT, date, exact, number, plural } from "./format.js"
import { setQuery } from "./router.js"

const SIZE = 50
const COLUMNS = [["episode", "Episode"], ["total_reward", "Reward"], ["length", "Length"], ["total_steps", "Step"], ["time", "Ended"]]

/** Make the table within an element. */
export function makeEpisodes(element, first, file) {
  const id = first.id
  const state = { kind: "train", sort: "episode", order: "desc", page: 0, status: "", reward_from: "", reward_to: "" }
  let abort = null
  let isOver = false

  const kind = choice("Of", [["train", "Training"], ["eval", "Evaluation"]], (value) => change({ kind: value, page: 0 }))
  const status = h("select", { class: "field", "aria-label": "How it ended", onchange: () => change({ status: status.value, page: 0 }) },
    [["", "Any end"], ["Terminated", "Terminated"], ["Truncated", "Truncated"]].map(([value, text]) => h("option", { value }, text)))
  const bound = (key, label) => h("input", { class: "field bound", type: "number", step: "any", placeholder: label, "aria-label": `Reward ${label}`, onchange: (event) => change({ [key]: event.target.value, page: 0 }) })
  const from = bound("reward_from", "from")
  const to = bound("reward_to", "to")
  const best = h("button", { onclick: () => change({ sort: "total_reward", order: "desc", page: 0 }) }, "Best first")
  const worst = h("button", { onclick: () => change({ sort: "total_reward", order: "asc", page: 0 }) }, "Worst first")
  const csv = h("a", { class: "button quiet", download: `${file("episodes")}.csv`, hidden: isReport() }, "CSV")
  const count = h("span", { class: "muted", role: "status" })
  const before = h("button", { onclick: () => change({ page: state.page - 1 }) }, "Previous")
  const after = h("button", { onclick: () => change({ page: state.page + 1 }) }, "Next")
  const where = h("span", { class: "muted" })
  const table = h("div", { class: "panel table-box" })
  put(element, h("div", { class: "toolbar run-bar" }, kind.element, status, h("span", { class: "control" }, "Reward", from, to), best, worst, h("span", { class: "grow" }), count, csv),
    table, h("div", { class: "toolbar pager" }, before, where, after))

  const asked = () => ({ kind: state.kind, sort: state.sort, order: state.order, status: state.status, reward_from: state.reward_from, reward_to: state.reward_to })

  async function ask() {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    try {
      const answer = await get(`api/runs/${id}/episodes`, { ...asked(), page: state.page, size: SIZE }, { signal: mine.signal })
      if (!isOver && abort === mine) draw(answer)
    } catch (problem) {
      if (problem.name === "AbortError") return
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) put(table, h("p", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows }) {
    const extras = [...new Set(rows.flatMap((row) => Object.keys(row.extras ?? {})))].slice(0, 12)
    const isTrain = state.kind === "train"
    const held = document.activeElement?.closest?.("th")?.dataset.key
    say(count, plural(n, "episode"))
    put(table, rows.length === 0 ? h("p", { class: "table-empty" }, "No episode fits.") : h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([key, text]) => heading(key, text)), h("th", {}, "End"), isTrain ? h("th", { class: "right" }, "Actor") : null,
        h("th", { class: "right" }, "Attempt"), extras.map((name) => h("th", { class: "right" }, name.replaceAll("_", " "))))),
      h("tbody", {}, rows.map((row) => h("tr", {},
        h("td", { class: "right" }, row.episode === null ? ABSENT : number(row.episode)),
        h("td", { class: "right strong", title: exact(row.total_reward) }, number(row.total_reward, 5)),
        h("td", { class: "right" }, number(row.length)), h("td", { class: "right" }, number(row.total_steps)),
        h("td", { class: "right muted" }, date(row.time)), h("td", {}, row.status),
        isTrain ? h("td", { class: "right" }, row.actor_id ?? ABSENT) : null, h("td", { class: "right" }, row.attempt),
        extras.map((name) => h("td", { class: "right", title: exact(row.extras[name]) }, number(row.extras[name]))))))))
    if (held) table.querySelector(`th[data-key="${held}"] button`)?.focus()
    const pages = Math.max(1, Math.ceil(n / SIZE))
    before.disabled = state.page <= 0
    after.disabled = state.page >= pages - 1
    say(where, `Page ${number(state.page + 1)} of ${number(pages)}`)
    csv.href = address(`api/runs/${id}/episodes.csv`, asked())
  }

  function heading(key, text) {
    const isOn = state.sort === key
    return h("th", { class: "right", dataset: { key }, "aria-sort": isOn ? (state.order === "asc" ? "ascending" : "descending") : "none" },
      h("button", { class: "quiet", onclick: () => change({ sort: key, order: isOn && state.order === "desc" ? "asc" : "desc", page: 0 }) }, text,
        h("span", { class: "arrow", "aria-hidden": "true" }, isOn ? (state.order === "asc" ? "↑" : "↓") : "")))
  }

  function change(changes) {
    Object.assign(state, changes)
    setQuery({
      kind: state.kind === "train" ? null : state.kind, sort: state.sort === "episode" ? null : state.sort, order: state.order === "desc" ? null : state.order,
      page: state.page || null, status: state.status, reward_from: state.reward_from, reward_to: state.reward_to,
    })
    show()
  }

  function show() {
    kind.value = state.kind
    status.value = state.status
    from.value = state.reward_from
    to.value = state.reward_to
    ask()
  }

  return {
    keys: [
      ["n", "Next page", () => { if (!after.disabled) after.click() }],
      ["p", "Page before", () => { if (!before.disabled) before.click() }],
    ],
    take(query) {
      Object.assign(state, {
        kind: query.kind === "eval" ? "eval" : "train", sort: COLUMNS.some(([key]) => key === query.sort) ? query.sort : "episode", order: query.order === "asc" ? "asc" : "desc",
        page: Math.max(0, Number.parseInt(query.page ?? "0", 10) || 0), status: query.status ?? "", reward_from: query.reward_from ?? "", reward_to: query.reward_to ?? "",
      })
      show()
    },
    update() { if (state.page === 0) ask() },
    destroy() {
      isOver = true
      abort?.abort()
    },
  }
}
