/** How the configs of the chosen runs differ: a row for each key, a column for each group or run. */

import { choice, toggle } from "./choices.js"
import { h, put } from "./dom.js"
import { plural } from "./format.js"

const MOST_COLUMNS = 24

/** `onChange({all})` or `onChange({columns})`: what a person set. */
export function makeDifferences(onChange) {
  const filter = h("input", { type: "search", class: "field", placeholder: "filter keys", "aria-label": "Filter keys", oninput: () => draw() })
  const all = toggle("Also equal values", (isAll) => onChange({ all: isAll }))
  const by = choice("Columns", [["group", "Groups"], ["run", "Runs"]], (columns) => onChange({ columns }))
  const note = h("p", { class: "muted" })
  const table = h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Table of settings" })
  const element = h("section", { class: "panel differences", "aria-labelledby": "differences-title" },
    h("header", { class: "toolbar" }, h("h2", { id: "differences-title" }, "Config differences"), note,
      h("span", { class: "grow" }), by.element, all.element, filter), table)
  let given = null

  function draw() {
    if (given === null) return
    const { diff, columns, isAll } = given
    const place = new Map(diff.ids.map((id, n) => [id, n]))
    const word = filter.value.trim().toLowerCase()
    const wanted = diff.keys.filter(({ key, differs }) => (isAll || differs) && key.toLowerCase().includes(word))
    const shown = columns.slice(0, MOST_COLUMNS)
    const nDiffer = diff.keys.filter(({ differs }) => differs).length
    put(note, summary(diff, nDiffer), columns.length > shown.length && ` The first ${MOST_COLUMNS} of ${columns.length} columns are shown.`)
    table.hidden = wanted.length === 0
    put(table, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Key"),
        shown.map(({ label, color }) => h("th", { scope: "col", title: label },
          h("span", { class: "swatch", style: { "--paint": color }, "aria-hidden": "true" }), h("span", { class: "label" }, label))))),
      h("tbody", {}, wanted.map(({ key, values, differs }) => {
        const cells = shown.map(({ ids }) => textsOf(ids.filter((id) => place.has(id)).map((id) => values[place.get(id)])))
        const usual = usualOf(cells)
        return h("tr", { class: differs ? null : "is-equal" }, h("th", { scope: "row" }, nameOf(key)), cells.map((texts) => cell(texts, usual)))
      }))))
  }

  return {
    element,
    /** `columns` are `{label, color, ids}`; `diff` is the answer of `api/diff`. */
    show(diff, columns, { isAll, by: chosen, hasGroups }) {
      const now = JSON.stringify([columns, isAll, chosen, hasGroups])
      if (given?.source === diff && given.key === now) return // what somebody has marked in the table stays so
      given = { source: diff, key: now, diff: withoutEmpty(diff), columns, isAll }
      all.value = isAll
      by.value = chosen
      by.element.hidden = !hasGroups
      draw()
    },
  }
}

/** A run without a config differs in nothing: it has nothing to compare. */
function withoutEmpty({ ids, keys }) {
  const kept = ids.map((_, n) => n).filter((n) => keys.some(({ values }) => values[n] !== null))
  const nEmpty = ids.length - kept.length
  if (!nEmpty) return { ids, keys, nEmpty }
  const own = keys.map(({ key, values }) => {
    const some = kept.map((n) => values[n])
    return { key, values: some, differs: new Set(some.map((value) => JSON.stringify(value))).size > 1 }
  })
  return { ids: kept.map((n) => ids[n]), keys: own.sort((a, b) => Number(b.differs) - Number(a.differs)), nEmpty }
}

function summary(diff, nDiffer) {
  if (diff.keys.length === 0) return "These runs have no config: a session without the command line need not write one."
  const without = diff.nEmpty ? ` ${plural(diff.nEmpty, "run")} without a config.` : ""
  if (nDiffer === 0) return `All ${plural(diff.keys.length, "key")} are equal.${without}`
  return `${nDiffer} of ${plural(diff.keys.length, "key")} ${nDiffer === 1 ? "differs" : "differ"}.${without}`
}

/** A dotted key, whose own part stands out and which may break behind its dots. */
function nameOf(key) {
  const cut = key.lastIndexOf(".") + 1
  return [cut > 0 && [h("span", { class: "muted" }, key.slice(0, cut)), h("wbr")], key.slice(cut)]
}

/** The different values of a column, as texts. */
function textsOf(values) {
  return [...new Set(values.map(shown))]
}

/** The value that more than half of the columns have. */
function usualOf(cells) {
  const times = new Map()
  for (const texts of cells) if (texts.length === 1) times.set(texts[0], (times.get(texts[0]) ?? 0) + 1)
  for (const [text, n] of times) if (n > cells.length / 2) return text
  return null
}

function cell(texts, usual) {
  if (texts.length <= 1) {
    const text = texts[0] ?? "–"
    return h("td", { class: text === usual || text === "–" ? "is-usual" : null, title: text.length > 24 ? text : null }, text)
  }
  const text = texts.length <= 6 ? texts.join(", ") : `${texts.slice(0, 3).join(", ")}, … (${texts.length} values)`
  return h("td", { class: "several", title: texts.join(", ") }, text)
}

function shown(value) {
  if (value === undefined || value === null) return "–" // null itself is the text "none"
  if (typeof value === "number") return String(Number(value.toPrecision(12))) // 0.001, not 0.0010000000000000002
  return String(value)
}
