/** The actors of a run as a table: the last episodes of each, and how fast it plays. */

import { get } from "./api.js"
import { h, put, renew, say } from "./dom.js"
import { ABSENT, date, exact, number, plural } from "./format.js"
import { setQuery } from "./router.js"

const SIZE = 50
const COLUMNS = [
  ["actor_id", "Actor"], ["n_episodes", "Episodes"], ["n_steps", "Steps"], ["mean_reward", "Mean reward"],
  ["max_reward", "Best reward"], ["mean_length", "Mean length"], ["steps_per_s", "Steps/s"], ["last_at", "Last ended"],
]
const DEFAULTS = { sort: "last_at", order: "desc", text: "", page: 0 }

/** Make the table within an element. */
export function makeActors(element, { id }) {
  const state = { ...DEFAULTS }
  let abort = null
  let isOver = false

  const text = h("input", {
    class: "field", type: "search", placeholder: "Filter actors", "aria-label": "Filter actors",
    oninput: (event) => change({ text: event.target.value }),
  })
  const count = h("span", { class: "muted", role: "status" })
  const before = h("button", { onclick: () => change({ page: state.page - 1 }) }, "Previous")
  const after = h("button", { onclick: () => change({ page: state.page + 1 }) }, "Next")
  const where = h("span", { class: "muted" })
  const table = h("div", { class: "panel table-box" })
  put(element,
    h("div", { class: "toolbar run-bar" }, text, h("span", { class: "muted" }, "Rewards, lengths and speeds of the last 100 episodes"),
      h("span", { class: "grow" }), count),
    table, h("div", { class: "toolbar pager" }, before, where, after))

  async function ask() {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    try {
      const answer = await get(`api/runs/${id}/actors`, { ...state, size: SIZE }, { signal: mine.signal })
      if (!isOver && abort === mine) draw(answer)
    } catch (problem) {
      if (problem.name === "AbortError") return
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) renew(table, problem.message, () => h("p", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows }) {
    const pages = Math.max(1, Math.ceil(n / SIZE))
    say(count, plural(n, "actor"))
    renew(table, [state, rows], () => (rows.length ? tableOf(rows) : h("p", { class: "table-empty" }, "No actor fits.")))
    before.disabled = state.page <= 0
    after.disabled = state.page >= pages - 1
    say(where, `Page ${number(state.page + 1)} of ${number(pages)}`)
  }

  const tableOf = (rows) => h("table", {},
    h("thead", {}, h("tr", {}, COLUMNS.map(([key, label]) => heading(key, label)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, COLUMNS.map(([key]) => cell(key, row[key]))))))

  function cell(key, value) {
    if (key === "actor_id") return h("td", { class: "right strong" }, String(value))
    if (key === "last_at") return h("td", { class: "right muted" }, date(value))
    return h("td", { class: "right", title: value === null ? null : exact(value) }, value === null ? ABSENT : number(value))
  }

  function heading(key, label) {
    const isOn = state.sort === key
    const isUp = state.order === "asc"
    const order = isOn && !isUp ? "asc" : "desc"
    return h("th", { class: "right", "aria-sort": !isOn ? "none" : isUp ? "ascending" : "descending" },
      h("button", { class: "quiet", onclick: () => change({ sort: key, order }) }, label,
        h("span", { class: "arrow", "aria-hidden": "true" }, !isOn ? "" : isUp ? "↑" : "↓")))
  }

  /** Another filter or order begins at its first page. */
  function change(changes) {
    Object.assign(state, { page: 0 }, changes)
    setQuery(Object.fromEntries(Object.entries(state).map(([key, value]) => [key, value === DEFAULTS[key] ? null : value])))
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
      if (state.order !== "asc") state.order = "desc"
      if (!COLUMNS.some(([key]) => key === state.sort)) state.sort = DEFAULTS.sort
      if (text.value !== state.text) text.value = state.text
      ask()
    },
    update() { ask() },
    destroy() {
      isOver = true
      abort?.abort()
    },
  }
}
