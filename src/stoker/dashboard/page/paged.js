/** A table of a run that the server sorts, filters and cuts into pages. */

import { get } from "./api.js"
import { h, renew, say } from "./dom.js"
import { number, plural } from "./format.js"
import { setQuery } from "./router.js"

const SIZE = 50

/**
 * Make the table and what turns its pages; the address keeps its state.
 *
 * `path` is the API's, `noun` is what a row is, `columns` are pairs of key and label, `defaults` is the state at
 * first, with `sort`, `order` and `page`. `show(state)` sets the controls, `tableOf(rows)` draws the rows, and
 * `answered()` is called after that.
 */
export function makePaged({ path, noun, columns, defaults, show, tableOf, answered = () => {} }) {
  const state = { ...defaults }
  let abort = null
  let isOver = false

  const count = h("span", { class: "muted", role: "status" })
  const before = h("button", { onclick: () => change({ page: state.page - 1 }) }, "Previous")
  const after = h("button", { onclick: () => change({ page: state.page + 1 }) }, "Next")
  const where = h("span", { class: "muted" })
  const table = h("div", { class: "panel table-box" })

  async function ask() {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    try {
      const answer = await get(path, { ...state, size: SIZE }, { signal: mine.signal })
      if (!isOver && abort === mine) draw(answer)
    } catch (problem) {
      if (problem.name === "AbortError") return
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) renew(table, problem.message, () => h("p", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows }) {
    const pages = Math.max(1, Math.ceil(n / SIZE))
    say(count, plural(n, noun))
    renew(table, [state, rows], () => (rows.length ? tableOf(rows) : h("p", { class: "table-empty" }, `No ${noun} fits.`)))
    before.disabled = state.page <= 0
    after.disabled = state.page >= pages - 1
    say(where, `Page ${number(state.page + 1)} of ${number(pages)}`)
    answered()
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
    setQuery(Object.fromEntries(Object.entries(state).map(([key, value]) => [key, value === defaults[key] ? null : value])))
    refresh()
  }

  function refresh() {
    show(state)
    ask()
  }

  return {
    state,
    count,
    table,
    pager: h("div", { class: "toolbar pager" }, before, where, after),
    ask,
    change,
    heading,
    keys: [
      ["n", "Next page", () => { if (!after.disabled) after.click() }],
      ["p", "Page before", () => { if (!before.disabled) before.click() }],
    ],
    take(query) {
      const known = Object.fromEntries(Object.entries(query).filter(([key]) => Object.hasOwn(defaults, key)))
      Object.assign(state, defaults, known, { page: Math.max(0, Number.parseInt(query.page ?? "0", 10) || 0) })
      if (state.order !== "asc") state.order = "desc"
      if (!columns.some(([key]) => key === state.sort)) state.sort = defaults.sort
      refresh()
    },
    destroy() {
      isOver = true
      abort?.abort()
    },
  }
}
