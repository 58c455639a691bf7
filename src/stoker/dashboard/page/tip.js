/** The one tooltip of the page: exact values beside the crosshair. */

import { h, put } from "./dom.js"
import { plural } from "./format.js"

const AWAY = 16
const EDGE = 8
const BELOW_BAR = 52

const tip = h("div", { class: "tip", role: "presentation", hidden: true })
document.body.append(tip)

/**
 * Show values at a place within a chart, on the side where there is room. `rows` are `{label, value, low, high, note,
 * color, place}`, `hidden` is how many have none; `text(value)` writes values.
 */
export function showTip(edges, { left, top }, { head, rows, events, hidden, text }) {
  put(
    tip,
    h("div", { class: "tip-head" }, head),
    rows.map((row) => h("div", { class: "tip-row" },
      h("span", { class: "swatch", style: { background: row.color } }),
      h("span", { class: "tip-label" }, row.label, row.place === null ? null : h("small", {}, ` ${row.place}`)),
      h("span", { class: "tip-value" }, text(row.value)),
      spread(row, text))),
    hidden > 0 ? h("div", { class: "tip-note" }, `${plural(hidden, "more curve")} not shown`) : null,
    events.map((event) => h("div", { class: "tip-note" }, event.sentence)),
  )
  tip.hidden = false
  const { width, height } = tip.getBoundingClientRect()
  const x = edges.left + left
  const isRight = x + AWAY + width < innerWidth - EDGE
  // On a narrow screen it would hide the curve beside the finger: it goes above the chart.
  const aside = edges.top + top - height / 2
  const over = edges.top - height - 4
  const above = over > BELOW_BAR ? over : edges.bottom + 30
  const goLeft = Math.max(EDGE, isRight ? x + AWAY : x - AWAY - width)
  const goTop = Math.max(EDGE, Math.min(innerHeight - height - EDGE, innerWidth <= 640 ? above : aside))
  tip.style.setProperty("transform", `translate(${Math.round(goLeft)}px, ${Math.round(goTop)}px)`)
}

function spread({ low, high, note }, text) {
  const isKnown = low !== undefined && low !== null && low !== high
  const parts = [isKnown ? `${text(low)} … ${text(high)}` : null, note].filter(Boolean)
  return parts.length ? h("span", { class: "tip-spread" }, parts.join(" · ")) : null
}

export function hideTip() {
  tip.hidden = true
}
