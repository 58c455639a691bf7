/** The one tooltip of the page: exact values beside the crosshair. */

import { h, put } from "./dom.js"
import { plural } from "./format.js"

const tip = h("div", { class: "tip", role: "presentation", hidden: true })
document.body.append(tip)

/** Show values at a place within a chart, on the side where there is room. */
export function showTip(edges, left, top, head, rows, events, { text, xText, head: at, hidden }) {
  put(
    tip,
    h("div", { class: "tip-head" }, head),
    rows.map((row) => h("div", { class: "tip-row" },
      h("span", { class: "swatch", style: { background: row.color } }),
      h("span", { class: "tip-label" }, row.label, row.x !== at ? h("small", {}, ` ${xText(row.x)}`) : null),
      h("span", { class: "tip-value" }, text(row.value)),
      spread(row, text))),
    hidden > 0 ? h("div", { class: "tip-note" }, `${plural(hidden, "more curve")} not shown`) : null,
    events.map((event) => h("div", { class: "tip-note" }, event.sentence)),
  )
  tip.hidden = false
  const { width, height } = tip.getBoundingClientRect()
  const x = edges.left + left
  const isRight = x + 16 + width < innerWidth - 8
  // On a narrow screen it would hide the curve beside the finger: it goes above the chart.
  const isNarrow = innerWidth <= 640
  const goLeft = Math.max(8, isRight ? x + 16 : x - 16 - width)
  const aside = edges.top + top - height / 2
  const above = edges.top - height - 4 > 52 ? edges.top - height - 4 : edges.bottom + 30
  const goTop = Math.max(8, Math.min(innerHeight - height - 8, isNarrow ? above : aside))
  tip.style.setProperty("transform", `translate(${Math.round(goLeft)}px, ${Math.round(goTop)}px)`)
}

function spread(row, text) {
  const isKnown = row.low !== undefined && row.low !== null && row.low !== row.high
  if (!isKnown && !row.note) return null
  return h("span", { class: "tip-spread" }, [isKnown ? `${text(row.low)} … ${text(row.high)}` : null, row.note].filter(Boolean).join(" · "))
}

export function hideTip() {
  tip.hidden = true
}
