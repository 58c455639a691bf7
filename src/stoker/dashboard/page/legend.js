/** The legend of a comparison: which line is which, where it ended, and switches to hide or emphasize it. */

import { h, put } from "./dom.js"
import { exact, number, plural, position } from "./format.js"
import { link } from "./router.js"

/**
 * `onToggle(key, isOnly)`: hide or show a group, or show it alone (with Shift or by double click);
 * `onPoint(key, id)`: the group, or the run of it, that the pointer or the focus is on; null for none;
 * `onOrder("given" or "last")`: the order of the rows, as the runs were chosen or by the last value.
 */
export function makeLegend({ onToggle, onPoint, onOrder }) {
  const body = h("tbody")
  const open = new Set()
  let shown = []
  const head = h("tr")
  const element = h("div", { class: "compare-legend" }, h("table", {}, h("thead", {}, head), body))

  const pointed = (key, id) => ({ onpointerenter: () => onPoint(key, id), onpointerleave: () => onPoint(null) })

  function unfold(key) {
    if (!open.delete(key)) open.add(key)
    draw()
  }

  function groupRow({ key, label, color, dash, isHidden, group }, x, isGrouped) {
    const last = lastOf(group)
    const swatch = h("span", { class: `swatch${dash.length ? " dashed" : ""}`, style: { "--paint": color }, "aria-hidden": "true" })
    const at = last && position(x, Math.round(last.x)) + (last.n < group.n_runs ? `, ${last.n} of ${plural(group.n_runs, "run")}` : "")
    return h("tr", { class: isHidden ? "is-hidden" : null, ...pointed(key) },
      h("th", { scope: "row" }, h("button", {
        type: "button", class: "legend-switch", "aria-pressed": String(!isHidden), dataset: { key },
        title: `${label}: click to ${isHidden ? "show" : "hide"}, Shift+click to show it alone`,
        onclick: (event) => onToggle(key, event.shiftKey || event.detail === 2),
        onfocus: () => onPoint(key), onblur: () => onPoint(null),
      }, swatch, h("span", { class: "label" }, label))),
      isGrouped && h("td", { class: "number" }, group.n_runs === 1 ? "1" : h("button", {
        type: "button", class: "quiet legend-unfold", "aria-expanded": String(open.has(key)), dataset: { key: `runs ${key}` },
        title: "List the runs", onclick: () => unfold(key),
      }, group.n_runs)),
      h("td", { class: "number", title: at }, last ? number(last.mid) : "–"),
      h("td", { class: "number muted", title: last && last.n > 1 ? `${exact(last.low)} to ${exact(last.high)}` : null }, group.n_runs === 1
        ? h("a", { class: "text-link", href: link("run", group.ids[0]), "aria-label": `Open ${label}` }, "open")
        : last && last.n > 1 ? `${number(last.low, 3)} to ${number(last.high, 3)}` : "–"))
  }

  function runRow(run, key, x) {
    const at = run.y.findLastIndex((value) => value !== null)
    return h("tr", { class: "legend-run", ...pointed(key, run.id) },
      h("th", { scope: "row", colspan: 2 }, h("a", { class: "text-link", href: link("run", run.id), onfocus: () => onPoint(key, run.id), onblur: () => onPoint(null) }, run.label)),
      h("td", { class: "number", title: at >= 0 ? position(x, Math.round(run.x[at])) : null }, at >= 0 ? number(run.y[at]) : "–"),
      h("td"))
  }

  function draw() {
    const [given, x, order] = shown
    const entries = order === "last" ? given.toSorted((a, b) => (lastOf(b.group)?.mid ?? -Infinity) - (lastOf(a.group)?.mid ?? -Infinity)) : given
    const isGrouped = entries.some(({ group }) => group.n_runs > 1)
    const held = document.activeElement?.dataset?.key
    const heading = (key, text, kind) => h("th", { scope: "col", class: kind, "aria-sort": key !== order ? "none" : key === "last" ? "descending" : "other" },
      h("button", { type: "button", class: "quiet", dataset: { key: `order ${key}` }, title: key === "last" ? "Highest first" : "As chosen", onclick: () => onOrder(key) },
        text, h("span", { "aria-hidden": "true" }, key === order && key === "last" ? "↓" : "")))
    put(head, heading("given", "Line"), isGrouped && h("th", { scope: "col", class: "number" }, "Runs"),
      heading("last", "Last", "number"), h("th", { scope: "col", class: "number" }, isGrouped ? "95 % interval" : ""))
    put(body, entries.map((entry) => [
      groupRow(entry, x, isGrouped),
      open.has(entry.key) && entry.group.n_runs > 1 && entry.group.runs.map((run) => runRow(run, entry.key, x)),
    ]))
    for (const one of element.querySelectorAll("button")) if (held && one.dataset.key === held) one.focus()
  }

  return {
    element,
    /** `entries` are `{key, label, color, dash, isHidden, group}`. */
    show(entries, x, order) {
      shown = [entries, x, order]
      draw()
    },
  }
}

/** The last point of a group with all of its runs, or else its last one: fewer runs have another mean. */
function lastOf(group) {
  const whole = group.n.lastIndexOf(group.n_runs)
  const i = whole >= 0 ? whole : group.mid.findLastIndex((value) => value !== null)
  return i < 0 ? null : { x: group.x[i], mid: group.mid[i], low: group.low[i], high: group.high[i], n: group.n[i] }
}
