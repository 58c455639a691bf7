/** Every episode of a run as a table: sorted, filtered, a page at a time. */

import { address, get, isReport } from "./api.js"
import { choice } from "./choices.js"
import { h, put, renew, say } from "./dom.js"
import { ABSENT, date, exact, number, plural } from "./format.js"
import { setQuery } from "./router.js"

const SIZE = 50
const MOST_EXTRAS = 12
const COLUMNS = [
  ["episode", "Episode"], ["total_reward", "Reward"], ["length", "Length"], ["total_steps", "Step"], ["time", "Ended"],
]
const ENDS = [["", "Any end"], ["Terminated", "Terminated"], ["Truncated", "Truncated"]]
const DEFAULTS = { kind: "train", sort: "episode", order: "desc", page: 0, status: "", reward_from: "", reward_to: "" }

/** Make the table within an element; `file(name)` gives the stem of a file's name. */
export function makeEpisodes(element, { id }, file) {
  const state = { ...DEFAULTS }
  let abort = null
  let isOver = false

  const kind = choice("Of", [["train", "Training"], ["eval", "Evaluation"]], (value) => change({ kind: value }))
  const status = h("select", {
    class: "field", "aria-label": "How it ended", onchange: () => change({ status: status.value }),
  },
  ENDS.map(([value, text]) => h("option", { value }, text)))
  const bound = (key, label) => h("input", {
    class: "field bound", type: "number", step: "any", placeholder: label, "aria-label": `Reward ${label}`,
    onchange: (event) => change({ [key]: event.target.value }),
  })
  const from = bound("reward_from", "from")
  const to = bound("reward_to", "to")
  const inOrder = (text, order) => h("button", { onclick: () => change({ sort: "total_reward", order }) }, text)
  const csv = h("a", { class: "button quiet", download: `${file("episodes")}.csv`, hidden: isReport() }, "CSV")
  const count = h("span", { class: "muted", role: "status" })
  const before = h("button", { onclick: () => change({ page: state.page - 1 }) }, "Previous")
  const after = h("button", { onclick: () => change({ page: state.page + 1 }) }, "Next")
  const where = h("span", { class: "muted" })
  const table = h("div", { class: "panel table-box" })
  put(element,
    h("div", { class: "toolbar run-bar" }, kind.element, status, h("span", { class: "control" }, "Reward", from, to),
      inOrder("Best first", "desc"), inOrder("Worst first", "asc"), h("span", { class: "grow" }), count, csv),
    table, h("div", { class: "toolbar pager" }, before, where, after))

  function asked() {
    const { page, ...wanted } = state
    return wanted
  }

  async function ask() {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    const params = { ...asked(), page: state.page, size: SIZE }
    try {
      const answer = await get(`api/runs/${id}/episodes`, params, { signal: mine.signal })
      if (!isOver && abort === mine) draw(answer)
    } catch (problem) {
      if (problem.name === "AbortError") return
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) renew(table, problem.message, () => h("p", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows }) {
    const pages = Math.max(1, Math.ceil(n / SIZE))
    say(count, plural(n, "episode"))
    renew(table, [state, rows], () => (rows.length ? tableOf(rows) : h("p", { class: "table-empty" }, "No episode fits.")))
    before.disabled = state.page <= 0
    after.disabled = state.page >= pages - 1
    say(where, `Page ${number(state.page + 1)} of ${number(pages)}`)
    csv.href = address(`api/runs/${id}/episodes.csv`, asked())
  }

  function tableOf(rows) {
    const extras = [...new Set(rows.flatMap((row) => Object.keys(row.extras ?? {})))].slice(0, MOST_EXTRAS)
    const isTrain = state.kind === "train"
    const name = (text) => h("th", { class: "right" }, text)
    return h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([key, text]) => heading(key, text)), h("th", {}, "End"),
        isTrain ? name("Actor") : null, name("Attempt"), extras.map((extra) => name(extra.replaceAll("_", " "))))),
      h("tbody", {}, rows.map((row) => h("tr", {},
        cell(row.episode === null ? ABSENT : number(row.episode)),
        cell(number(row.total_reward, 5), "strong", exact(row.total_reward)),
        cell(number(row.length)), cell(number(row.total_steps)), cell(date(row.time), "muted"), h("td", {}, row.status),
        isTrain ? cell(row.actor_id ?? ABSENT) : null, cell(row.attempt),
        extras.map((extra) => cell(number(row.extras[extra]), "", exact(row.extras[extra])))))))
  }

  const cell = (text, kindOf = "", title = null) => h("td", { class: `right ${kindOf}`, title }, text)

  function heading(key, text) {
    const isOn = state.sort === key
    const isUp = state.order === "asc"
    const order = isOn && !isUp ? "asc" : "desc"
    return h("th", { class: "right", "aria-sort": !isOn ? "none" : isUp ? "ascending" : "descending" },
      h("button", { class: "quiet", onclick: () => change({ sort: key, order }) }, text,
        h("span", { class: "arrow", "aria-hidden": "true" }, !isOn ? "" : isUp ? "↑" : "↓")))
  }

  /** Another filter or order begins at its first page. */
  function change(changes) {
    Object.assign(state, { page: 0 }, changes)
    const isOther = ([key, value]) => [key, value === DEFAULTS[key] ? null : value]
    setQuery(Object.fromEntries(Object.entries(state).map(isOther)))
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
      const known = Object.fromEntries(Object.entries(query).filter(([key]) => Object.hasOwn(DEFAULTS, key)))
      Object.assign(state, DEFAULTS, known, { page: Math.max(0, Number.parseInt(query.page ?? "0", 10) || 0) })
      if (state.kind !== "eval") state.kind = "train"
      if (state.order !== "asc") state.order = "desc"
      if (!COLUMNS.some(([key]) => key === state.sort)) state.sort = "episode"
      show()
    },
    update() { if (state.page === 0) ask() },
    destroy() {
      isOver = true
      abort?.abort()
    },
  }
}
