/** The list of runs: found quickly, sorted, filtered, several selected. */

import { get, listen } from "./api.js"
import { h, put, renew, say, statusIcon } from "./dom.js"
import { plural } from "./format.js"
import { bindKeys } from "./keys.js"
import { go, link, setQuery } from "./router.js"
import { groupRow, MOST_COMPARED, runRow, signature } from "./rows.js"
import { entriesOf, filtered, FIRST_ORDER, sorted, STATUSES } from "./sorting.js"
import { makeSparks } from "./spark.js"
import { makeWindowed } from "./windowed.js"

const COLUMNS = [
  ["name", "Run"], ["status", "Status"], [null, "Reward"], ["best", "Best"], ["last", "Last 100"], ["steps", "Steps"],
  ["speed", "Steps/s"], ["updated", "Updated"],
]
const OFTEN_S = 2
const AGES_S = 10

/** Show the list; returns what the frame calls when the address changes and when another view comes. */
export async function show(element, query, frame) {
  const abort = new AbortController()
  let answer = await get("api/runs", {}, { signal: abort.signal })
  let runs = answer.runs
  let entries = []
  const shown = { text: "", status: "", by: "updated", order: "desc", isGrouped: true }
  const closed = new Set()
  const selected = new Set()
  let lastSelected = null

  const search = h("input", {
    class: "field search", type: "search", placeholder: "Filter: name, status, agent=ppo", "aria-label": "Filter runs",
    autocomplete: "off", spellcheck: "false", oninput: () => change({ text: search.value }),
    onkeydown: (event) => { if (event.key === "Escape") search.blur() },
  })
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Status" })
  const grouped = h("button", {
    class: "chip", "aria-pressed": "true", title: "Group runs of one name and version",
    onclick: () => change({ isGrouped: !shown.isGrouped }),
  }, "Grouped")
  const count = h("span", { class: "muted count", role: "status" })
  const sortPick = h("select", {
    class: "field sort-pick", "aria-label": "Sort by", onchange: () => sortBy(sortPick.value, true),
  },
  COLUMNS.filter(([key]) => key).map(([key, text]) => h("option", { value: key }, text)))
  const bar = h("div", { class: "toolbar list-bar" }, search, chips, h("span", { class: "grow" }), count, sortPick, grouped)
  const heads = h("div", { class: "row head", role: "row" })
  const body = h("div", { class: "rows", role: "rowgroup", onclick: clicked })
  const table = h("div", { class: "panel runs-table", role: "table", "aria-label": "Runs" },
    h("div", { role: "rowgroup", class: "heads" }, heads), body)
  const tray = h("div", { class: "tray", role: "region", "aria-label": "Selection", hidden: true })
  const empty = h("div")
  put(element, h("h1", { class: "hidden-text" }, "Runs"), bar, table, empty, tray)

  const sparks = makeSparks(() => list.paint())
  const isSelected = (entry) => entry.runs.every((run) => selected.has(run.id))
  const sparkOf = (entry) => (entry.kind === "run" ? sparks.of(entry.runs[0].id) : null)
  const list = makeWindowed(body, {
    keyOf: (entry) => (entry.kind === "run" ? entry.runs[0].id : `group ${entry.group}`),
    heights() {
      const style = getComputedStyle(table)
      const of = (kind) => Number.parseFloat(style.getPropertyValue(`--${kind}-height`))
      return { run: of("run"), group: of("group") }
    },
    signatureOf: (entry) => signature(entry, isSelected(entry), sparkOf(entry)),
    makeRow: (entry) => (entry.kind === "run" ? runRow(entry, isSelected(entry), sparkOf(entry), select)
      : groupRow(entry, isSelected(entry), select, fold)),
    shown: (some) => sparks.ask(some.filter((entry) => entry.kind === "run").map((entry) => entry.runs[0])),
  })

  /** What the address says of the list. */
  const asked = () => ({
    q: shown.text, status: shown.status, sort: shown.by === "updated" ? null : shown.by,
    order: shown.order === FIRST_ORDER[shown.by] ? null : shown.order, group: shown.isGrouped ? null : "no",
  })

  function take(next) {
    const by = Object.hasOwn(FIRST_ORDER, next.sort ?? "") ? next.sort : "updated"
    const order = next.order === "asc" || next.order === "desc" ? next.order : FIRST_ORDER[by]
    const status = STATUSES.includes(next.status) ? next.status : ""
    Object.assign(shown, { text: next.q ?? "", status, by, order, isGrouped: next.group !== "no" })
    search.value = shown.text
    arrange()
  }

  function change(changes) {
    Object.assign(shown, changes)
    setQuery(asked())
    arrange()
  }

  function sortBy(by, isFirst = false) {
    const other = shown.order === "asc" ? "desc" : "asc"
    change({ by, order: shown.by === by && !isFirst ? other : FIRST_ORDER[by] })
  }

  /** Filter, sort and group again, then draw. */
  function arrange() {
    const byText = filtered(runs, shown.text, "")
    const found = sorted(filtered(byText, "", shown.status), shown.by, shown.order)
    entries = entriesOf(found, shown.isGrouped, closed)
    const isLooking = !answer.is_scanned && !runs.length
    const all = plural(runs.length, "run")
    say(count, isLooking ? "" : found.length === runs.length ? all : `${found.length} of ${all}`)
    showChips(byText)
    showHeads()
    grouped.setAttribute("aria-pressed", String(shown.isGrouped))
    sortPick.value = shown.by
    table.hidden = bar.hidden = runs.length === 0
    table.setAttribute("aria-rowcount", String(entries.length + 1))
    renew(empty, [found.length > 0, runs.length > 0, answer.is_scanned, answer.hint], () => nothing(found))
    list.set(entries)
  }

  function showChips(byText) {
    const counts = new Map()
    for (const { status } of byText) counts.set(status, (counts.get(status) ?? 0) + 1)
    renew(chips, [...counts, shown.status], () => STATUSES.filter((status) => status === shown.status || counts.has(status)).map((status) =>
      h("button", {
        class: "chip", "aria-pressed": String(status === shown.status),
        onclick: () => change({ status: shown.status === status ? "" : status }),
      }, statusIcon(status), `${status} ${counts.get(status) ?? 0}`)))
  }

  function showHeads() {
    const order = (key) => (shown.by !== key ? "none" : shown.order === "asc" ? "ascending" : "descending")
    const arrow = (key) => (shown.by !== key ? "" : shown.order === "asc" ? "↑" : "↓")
    const box = h("span", { class: "cell pick", role: "columnheader" }, h("span", { class: "hidden-text" }, "Select"))
    renew(heads, [shown.by, shown.order], () => [box,
      COLUMNS.map(([key, text]) => (key === null ? h("span", { class: "cell spark", role: "columnheader" }, text)
        : h("span", { class: `cell ${key}`, role: "columnheader", "aria-sort": order(key) },
          h("button", { class: "quiet", onclick: () => sortBy(key) }, text,
            h("span", { class: "arrow", "aria-hidden": "true" }, arrow(key))))))])
  }

  /** What stands in place of rows. */
  function nothing(found) {
    if (found.length) return null
    if (runs.length) {
      return h("div", { class: "empty" }, h("p", {}, "No run matches."),
        h("button", { onclick: () => { search.value = ""; change({ text: "", status: "" }) } }, "Clear the filter"))
    }
    if (!answer.is_scanned) {
      return h("div", { class: "empty", role: "status" }, h("h1", {}, "Looking for runs"), h("p", {}, answer.root))
    }
    // The hint has commands between backquotes.
    const parts = (answer.hint ?? `Nothing was found in ${answer.root}.`).split("`")
    return h("div", { class: "empty" }, h("h1", {}, "No runs yet"), parts.map((part, at) =>
      h(at % 2 ? "pre" : "p", { class: at % 2 ? "mono" : "" }, part.replace(/^[;,.\s]+/, ""))))
  }

  function fold(group) {
    if (!closed.delete(group)) closed.add(group)
    arrange()
  }

  function clicked(event) {
    const row = event.target.closest(".row")
    if (!row || event.target.closest("a, button, input") || getSelection().toString()) return
    if (row.dataset.id) go("run", row.dataset.id)
    else fold(row.dataset.group)
  }

  /** Select runs or not; with Shift all from the last one on. */
  function select(some, isOn, isRange) {
    let chosen = some.map((run) => run.id)
    if (isRange && lastSelected) {
      const ids = entries.filter((entry) => entry.kind === "run").map((entry) => entry.runs[0].id)
      const [a, b] = [ids.indexOf(lastSelected), ids.indexOf(chosen[0])].sort((one, other) => one - other)
      if (a >= 0) chosen = ids.slice(a, b + 1)
    }
    for (const id of chosen) selected[isOn ? "add" : "delete"](id)
    lastSelected = chosen[0]
    showTray()
  }

  function clear() {
    selected.clear()
    showTray()
  }

  function compare() {
    if (selected.size && selected.size <= MOST_COMPARED) go("compare", null, { ids: [...selected].join(",") })
  }

  function showTray() {
    const isTooMany = selected.size > MOST_COMPARED
    tray.hidden = selected.size === 0
    put(tray, h("b", {}, `${plural(selected.size, "run")} selected`),
      h("button", { class: "primary", onclick: compare, disabled: isTooMany },
        isTooMany ? `Compare at most ${MOST_COMPARED}` : "Compare"),
      h("button", { class: "quiet", onclick: clear }, "Clear"))
    list.paint()
  }

  function pick() {
    const entry = list.focused
    if (entry) select(entry.runs, !isSelected(entry), false)
  }

  let waiting = null
  let took = 0
  /** Get what has changed, but not more often than is useful: a large list takes its time. */
  function refresh() {
    waiting ??= setTimeout(async () => {
      waiting = null
      const began = performance.now()
      try {
        const next = await get("api/runs", { cursor: answer.cursor }, { signal: abort.signal })
        if (next.cursor !== answer.cursor || next.is_scanned !== answer.is_scanned) takeIn(next)
      } catch (problem) {
        // The frame tells of a lost connection, and the next news ask again.
        if (problem.name !== "AbortError" && problem.status === undefined) throw problem
      }
      took = performance.now() - began
      if (!answer.is_scanned && !abort.signal.aborted) refresh()
    }, Math.max(OFTEN_S * 1000, took * 4))
  }

  /** A whole list, or only what has changed in it. */
  function takeIn(next) {
    if (next.is_partial) {
      const known = new Map(runs.map((run) => [run.id, run]))
      for (const run of next.runs) known.set(run.id, { ...known.get(run.id), ...run }) // settings only if they changed
      for (const id of next.removed) known.delete(id)
      runs = [...known.values()]
    } else runs = next.runs
    answer = next
    arrange()
  }

  frame.setCrumbs(answer.root ? [[answer.root, null]] : [])
  take(query)
  if (!answer.is_scanned) refresh()
  const ages = setInterval(list.paint, AGES_S * 1000)
  const endNews = listen(null, { runs: refresh, state: frame.setConnection })
  const endKeys = bindKeys([
    ["/", "Filter", () => search.focus()],
    ["j", "Next run", () => list.step(1)], ["ArrowDown", "Next run", () => list.step(1)],
    ["k", "Run before", () => list.step(-1)], ["ArrowUp", "Run before", () => list.step(-1)],
    ["x", "Select the run", pick],
    ["c", "Compare the selected runs", compare],
    ["o", "Group or not", () => grouped.click()],
    ["Escape", "Clear the selection", clear],
  ], "List of runs")
  return {
    setQuery: take,
    address: () => link("runs", null, asked()),
    destroy() {
      abort.abort()
      clearTimeout(waiting)
      clearInterval(ages)
      endKeys()
      endNews()
      sparks.destroy()
      list.destroy()
    },
  }
}
