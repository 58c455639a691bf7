/** The list of runs: found quickly, sorted, filtered, several selected. Only the rows in view are in the document. */

import { get, listen } from "./api.js"
import { h, put, say, statusIcon } from "./dom.js"
import { plural } from "./format.js"
import { bindKeys } from "./keys.js"
import { go, link, setQuery } from "./router.js"
import { groupRow, MOST_COMPARED, runRow, signature } from "./rows.js"
import { entriesOf, filtered, FIRST_ORDER, sorted, STATUSES } from "./sorting.js"
import { makeSparks } from "./spark.js"

const COLUMNS = [["name", "Run"], ["status", "Status"], [null, "Reward"], ["best", "Best"], ["last", "Last 100"], ["steps", "Steps"], ["speed", "Steps/s"], ["updated", "Updated"]]
const AHEAD = 10
const OFTEN_S = 2

/** Show the list; returns what the frame calls when the address changes and when another view comes. */
export async function show(element, query, frame) {
  const state = { runs: [], entries: [], text: "", status: "", by: "updated", order: "desc", isGrouped: true, closed: new Set(), selected: new Set(), last: null }
  let answer = null
  let isOver = false
  const drawn = new Map()
  const sparks = makeSparks(() => paint())
  const abort = new AbortController()

  const search = h("input", { class: "field search", type: "search", placeholder: "Filter: name, status, agent=ppo", "aria-label": "Filter runs", autocomplete: "off", spellcheck: "false", oninput: () => { state.text = search.value; changed() } })
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Status" })
  const grouped = h("button", { class: "chip", "aria-pressed": "true", title: "Group runs of one name and version", onclick: () => { state.isGrouped = !state.isGrouped; changed() } }, "Grouped")
  const count = h("span", { class: "muted count", role: "status" })
  const heads = h("div", { class: "row head", role: "row" })
  const body = h("div", { class: "rows", role: "rowgroup" })
  const table = h("div", { class: "panel runs-table", role: "table", "aria-label": "Runs" }, h("div", { role: "rowgroup", class: "heads" }, heads), body)
  const tray = h("div", { class: "tray", role: "region", "aria-label": "Selection", hidden: true })
  const sortPick = h("select", { class: "field sort-pick", "aria-label": "Sort by", onchange: () => sortBy(sortPick.value, FIRST_ORDER[sortPick.value]) },
    COLUMNS.filter(([key]) => key).map(([key, text]) => h("option", { value: key }, text)))
  const empty = h("div")
  const bar = h("div", { class: "toolbar list-bar" }, search, chips, h("span", { class: "grow" }), count, sortPick, grouped)
  put(element, h("h1", { class: "hidden-text" }, "Runs"), bar, table, empty, tray)

  function take(next) {
    state.text = next.q ?? ""
    state.status = STATUSES.includes(next.status) ? next.status : ""
    state.by = Object.hasOwn(FIRST_ORDER, next.sort ?? "") ? next.sort : "updated"
    state.order = next.order === "asc" || next.order === "desc" ? next.order : FIRST_ORDER[state.by]
    state.isGrouped = next.group !== "no"
    search.value = state.text
    arrange()
  }

  /** A whole list, or only what has changed in it. */
  function takeIn(next) {
    if (next.is_partial) {
      const known = new Map(state.runs.map((run) => [run.id, run]))
      for (const run of next.runs) known.set(run.id, run)
      for (const id of next.removed) known.delete(id)
      state.runs = [...known.values()]
    } else state.runs = next.runs
    answer = next
    arrange()
  }

  function changed() {
    setQuery(asked())
    arrange()
  }

  const asked = () => ({
    q: state.text, status: state.status, sort: state.by === "updated" ? null : state.by,
    order: state.order === FIRST_ORDER[state.by] ? null : state.order, group: state.isGrouped ? null : "no",
  })

  function sortBy(by, order = null) {
    state.order = order ?? (state.by === by ? (state.order === "asc" ? "desc" : "asc") : FIRST_ORDER[by])
    state.by = by
    changed()
  }

  /** Filter, sort and group again, then draw. */
  function arrange() {
    if (!answer) return
    const byText = filtered(state.runs, state.text, "")
    const found = sorted(state.status ? byText.filter((run) => run.status === state.status) : byText, state.by, state.order)
    state.entries = entriesOf(found, state.isGrouped, state.closed)
    put(chips, STATUSES.filter((status) => status === state.status || byText.some((run) => run.status === status)).map((status) =>
      h("button", { class: "chip", "aria-pressed": String(status === state.status), onclick: () => { state.status = state.status === status ? "" : status; changed() } },
        statusIcon(status), `${status} ${byText.filter((run) => run.status === status).length}`)))
    say(count, !answer.is_scanned && !state.runs.length ? "" : found.length === state.runs.length ? plural(found.length, "run") : `${found.length} of ${plural(state.runs.length, "run")}`)
    grouped.setAttribute("aria-pressed", String(state.isGrouped))
    sortPick.value = state.by
    put(heads, h("span", { class: "cell pick", role: "columnheader" }, h("span", { class: "hidden-text" }, "Select")),
      COLUMNS.map(([key, text]) => h("span", { class: `cell ${key ?? "spark"}`, role: "columnheader", "aria-sort": key === null ? null : state.by !== key ? "none" : state.order === "asc" ? "ascending" : "descending" },
        key === null ? text : h("button", { class: "quiet", onclick: () => sortBy(key) }, text, h("span", { class: "arrow", "aria-hidden": "true" }, state.by !== key ? "" : state.order === "asc" ? "↑" : "↓")))))
    table.hidden = bar.hidden = state.runs.length === 0
    put(empty, nothing(found))
    table.setAttribute("aria-rowcount", String(state.entries.length + 1))
    measure()
    paint()
  }

  function nothing(found) {
    if (!answer.is_scanned && !state.runs.length) return h("div", { class: "empty", role: "status" }, h("h1", {}, "Looking for runs"), h("p", {}, answer.root))
    if (!state.runs.length) {
      return h("div", { class: "empty" }, h("h1", {}, "No runs yet"), (answer.hint ?? `Nothing was found in ${answer.root}.`).split("`").map((part, at) => h(at % 2 ? "pre" : "p", { class: at % 2 ? "mono" : "" }, part.replace(/^[;,.\s]+/, ""))))
    }
    return found.length ? null : h("div", { class: "empty" }, h("p", {}, "No run matches. "), h("button", { onclick: () => { state.text = ""; state.status = ""; search.value = ""; changed() } }, "Clear the filter"))
  }

  let tops = []
  function measure() {
    const style = getComputedStyle(table)
    const heights = { run: parseFloat(style.getPropertyValue("--row-height")), group: parseFloat(style.getPropertyValue("--group-height")) }
    tops = [0]
    for (const entry of state.entries) tops.push(tops[tops.length - 1] + heights[entry.kind])
    body.style.setProperty("height", `${tops[tops.length - 1]}px`)
  }

  const firstBelow = (y) => {
    let [low, high] = [0, state.entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (tops[middle + 1] <= y) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Put the rows in view into the document; rows that show the same as before stay as they are. */
  function paint() {
    if (isOver || !answer) return
    const above = -body.getBoundingClientRect().top
    const from = Math.max(0, firstBelow(above) - AHEAD)
    const to = Math.min(state.entries.length, firstBelow(above + innerHeight) + AHEAD + 1)
    const kept = new Set()
    for (let at = from; at < to; at++) {
      const entry = state.entries[at]
      const key = entry.kind === "run" ? entry.run.id : `group ${entry.group}`
      kept.add(key)
      const spark = entry.kind === "run" ? sparks.of(entry.run.id) : null
      const isSelected = entry.kind === "run" ? state.selected.has(entry.run.id) : entry.runs.every((run) => state.selected.has(run.id))
      const now = signature(entry, isSelected, spark)
      let row = drawn.get(key)
      if (row?.now !== now) {
        const made = entry.kind === "run" ? runRow(entry, isSelected, spark, select) : groupRow(entry, isSelected, select, fold)
        const held = row?.element.contains(document.activeElement) ? focusPath(document.activeElement) : null
        if (row) row.element.replaceWith(made)
        else body.append(made)
        row = { element: made, now, top: null }
        drawn.set(key, row)
        if (held) made.querySelector(held)?.focus({ preventScroll: true })
      }
      if (row.top !== tops[at]) row.element.style.setProperty("transform", `translateY(${tops[at]}px)`)
      row.top = tops[at]
      row.element.setAttribute("aria-rowindex", String(at + 2))
      row.at = at
    }
    for (const [key, row] of drawn) {
      if (kept.has(key)) continue
      row.element.remove()
      drawn.delete(key)
    }
    // The order in the document is the order of the tab key and of screen readers.
    let before = null
    for (const row of [...drawn.values()].sort((one, other) => one.at - other.at)) {
      if (row.element.previousElementSibling !== before && !row.element.contains(document.activeElement)) body.insertBefore(row.element, before ? before.nextSibling : body.firstChild)
      before = row.element
    }
    sparks.ask(state.entries.slice(from, to).filter((entry) => entry.kind === "run").map((entry) => entry.run))
  }

  const focusPath = (active) => (active.matches("input") ? "input" : active.matches(".fold") ? ".fold" : "a")

  function fold(group) {
    if (!state.closed.delete(group)) state.closed.add(group)
    arrange()
  }

  function select(runs, isOn, isRange) {
    const ids = state.entries.filter((entry) => entry.kind === "run").map((entry) => entry.run.id)
    let chosen = runs.map((run) => run.id)
    if (isRange && state.last && ids.includes(state.last)) {
      const [a, b] = [ids.indexOf(state.last), ids.indexOf(chosen[0])].sort((one, other) => one - other)
      chosen = ids.slice(a, b + 1)
    }
    for (const id of chosen) state.selected[isOn ? "add" : "delete"](id)
    state.last = chosen[0]
    showTray()
    paint()
  }

  function compare() {
    if (state.selected.size && state.selected.size <= MOST_COMPARED) go("compare", null, { ids: [...state.selected].join(",") })
  }

  function showTray() {
    tray.hidden = state.selected.size === 0
    put(tray, h("b", {}, `${plural(state.selected.size, "run")} selected`),
      h("button", { class: "primary", onclick: compare, disabled: state.selected.size > MOST_COMPARED }, state.selected.size > MOST_COMPARED ? `Compare at most ${MOST_COMPARED}` : "Compare"),
      h("button", { class: "quiet", onclick: () => { state.selected.clear(); showTray(); paint() } }, "Clear"))
  }

  /** Move the focus to another row, in or out of view. */
  function step(way) {
    const active = [...drawn.values()].find((row) => row.element.contains(document.activeElement))
    const at = Math.max(0, Math.min(state.entries.length - 1, active ? active.at + way : firstBelow(-body.getBoundingClientRect().top + 60)))
    const top = body.getBoundingClientRect().top + tops[at]
    if (top < 100) scrollBy(0, top - 100)
    if (top > innerHeight - 120) scrollBy(0, top - innerHeight + 120)
    paint()
    const row = [...drawn.values()].find((one) => one.at === at)
    row?.element.querySelector("a.title, .fold")?.focus({ preventScroll: true })
  }

  function focused() {
    const row = [...drawn.values()].find((one) => one.element.contains(document.activeElement))
    return row ? state.entries[row.at] : null
  }

  function pick() {
    const entry = focused()
    if (!entry) return
    const runs = entry.kind === "run" ? [entry.run] : entry.runs
    select(runs, !runs.every((run) => state.selected.has(run.id)), false)
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest(".row")
    if (!row || event.target.closest("a, button, input") || getSelection().toString()) return
    if (row.dataset.id) go("run", row.dataset.id)
    else fold(row.dataset.group)
  })

  const endKeys = bindKeys([
    ["/", "Filter", () => search.focus()],
    ["j", "Next run", () => step(1)], ["k", "Run before", () => step(-1)],
    ["ArrowDown", "Next run", () => step(1)], ["ArrowUp", "Run before", () => step(-1)],
    ["x", "Select the run", pick],
    ["c", "Compare the selected runs", compare],
    ["o", "Group or not", () => grouped.click()],
    ["Escape", "Clear the selection", () => { state.selected.clear(); showTray(); paint() }],
  ], "List of runs")
  search.addEventListener("keydown", (event) => { if (event.key === "Escape") search.blur() })

  let waiting = null
  let took = 0
  /** Get the list again, but not more often than is useful: a large one takes its time. */
  function refresh() {
    waiting ??= setTimeout(async () => {
      waiting = null
      const began = performance.now()
      try {
        const next = await get("api/runs", { cursor: answer.cursor }, { signal: abort.signal })
        if (!isOver && next.cursor !== answer.cursor) takeIn(next)
      } catch (problem) {
        if (problem.name !== "AbortError" && problem.status === undefined) throw problem
      }
      took = performance.now() - began
      if (answer && !answer.is_scanned) refresh()
    }, Math.max(OFTEN_S * 1000, took * 4))
  }

  let frameAsked = false
  const scrolled = () => {
    if (frameAsked) return
    frameAsked = true
    requestAnimationFrame(() => { frameAsked = false; paint() })
  }
  const resized = () => { measure(); scrolled() }
  addEventListener("scroll", scrolled, { passive: true })
  addEventListener("resize", resized)
  const ages = setInterval(paint, 10_000)

  frame.setCrumbs([])
  const view = {
    setQuery: take,
    address: () => link("runs", null, asked()),
    update: refresh,
    destroy() {
      isOver = true
      abort.abort()
      clearTimeout(waiting)
      clearInterval(ages)
      removeEventListener("scroll", scrolled)
      removeEventListener("resize", resized)
      endKeys()
      endNews()
      sparks.destroy()
    },
  }
  let endNews = () => {}
  try {
    answer = await get("api/runs", {}, { signal: abort.signal })
  } catch (problem) {
    view.destroy()
    throw problem
  }
  state.runs = answer.runs
  frame.setCrumbs([[answer.root, null]])
  take(query)
  scrollTo(0, frame.scrollOf(location.hash))
  if (!answer.is_scanned) refresh()
  endNews = listen(null, { runs: refresh, state: frame.setConnection })
  return view
}
