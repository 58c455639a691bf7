/** Where the time goes: for each part of a training the shares of its states, stacked over the run. */

import { h, put, renew } from "./dom.js"
import { percent } from "./format.js"
import { makePanel } from "./panel.js"
import { curveColor, color, onTheme } from "./theme.js"

const IDLE = new Set(["waiting", "idle", "starved"])
const COLORS = new Map(Object.entries({
  learning: 0, computing: 0, running: 0, playing: 0, writing: 0, stepping: 0, acting: 1, committing: 1, blocked: 1,
  observing: 2, scoring: 2, saving: 3, resetting: 3, handover: 4, gathering: 4, publishing: 5, offloaded: 5, delivering: 6,
  starting: 6, finishing: 6, staging: 7,
}))
const ORDER = ["learner", "actors", "inference", "loop", "evaluator", "writer", "checkpoints"]
const WORTH = 0.005 // a smaller mean share is shown only if it was a peak at times
const PEAK = 0.05
const BUSY = 0.02 // a part that does less than this is not shown

/** Make the section; `options(name)` are those of a panel, `zoom(from, to)` is called for another range. */
export function makeShares(options, zoom) {
  const title = "Where the time goes"
  const grid = h("div", { class: "shares" })
  const verdict = h("div", { class: "verdict" })
  const element = h("section", { class: "block", "aria-label": title, hidden: true },
    h("h2", { class: "block-title" }, title), verdict, grid)
  const panels = new Map()
  let parts = []
  const endTheme = onTheme(() => parts.forEach(showLegend))

  const paint = ({ state, at }) => (IDLE.has(state) ? "idle" : COLORS.get(state) ?? at % 8)

  function showLegend({ part, states }) {
    put(panels.get(part).legend, states.map((state) => {
      const name = paint(state)
      const background = typeof name === "string" ? color(name) : curveColor(name)
      const swatch = h("span", { class: "swatch square", style: { background } })
      return h("span", {}, swatch, state.state, h("b", {}, percent(state.mean)))
    }))
  }

  function panelOf(part) {
    if (panels.has(part)) return panels.get(part)
    const legend = h("div", { class: "legend" })
    const short = part.charAt(0).toUpperCase() + part.slice(1)
    const own = { title: `${short}: where its time goes`, short, isShare: true, isSmall: true, height: 110, legend }
    const panel = makePanel({ ...options(`time of ${part}`), ...own })
    panel.chart.onZoom(zoom)
    grid.append(panel.element)
    panels.set(part, { panel, legend })
    return panels.get(part)
  }

  return {
    element,
    /** Draw the answer of `api/runs/<id>/shares`; the means are those of the range. */
    update(answer, x, from, to) {
      parts = answer.parts.map((part) => shown(part, from, to)).filter((part) => part.isBusy)
        .sort((one, other) => rank(one.part) - rank(other.part))
      element.hidden = parts.length === 0 && verdict.childElementCount === 0
      for (const [name, { panel }] of panels) {
        if (parts.some(({ part }) => part === name)) continue
        panel.destroy()
        panels.delete(name)
      }
      for (const one of parts) {
        const { panel } = panelOf(one.part)
        panel.setX(x)
        panel.setData(one.states.map((state) => ({
          label: state.state, kind: "stack", x: one.x, y: state.values, color: paint(state),
          alpha: IDLE.has(state.state) ? 0.6 : 0.8,
        })))
        showLegend(one)
      }
    },
    /** The verdict is the last paragraph of the report; the shares before it are what the charts show. */
    setExplanation(explanation) {
      if (!explanation) return
      const paragraphs = explanation.lines.join("\n").split(/\n\s*\n/)
      const [head, ...remedies] = paragraphs.pop().split("\n")
      const open = verdict.querySelector("details")?.open ?? false
      renew(verdict, explanation.lines, () => [
        h("p", { class: "verdict-head" }, head), remedies.map((line) => h("p", {}, line)),
        paragraphs.length ? h("details", { open }, h("summary", {}, "Whole report"), h("pre", {}, paragraphs.join("\n\n"))) : null,
      ])
      element.hidden = false
    },
    setRange(from, to) {
      for (const { panel } of panels.values()) panel.chart.setRange(from, to)
    },
    destroy() {
      endTheme()
      for (const { panel } of panels.values()) panel.destroy()
    },
  }
}

const rank = (part) => (ORDER.includes(part) ? ORDER.indexOf(part) : ORDER.length)

/** The states that are worth a color; idle time lies on top, so that what a part does grows from the ground. */
function shown({ part, states, x, shares }, from, to) {
  const isIn = x.map((at) => (from === null || at >= from) && (to === null || at <= to))
  const found = states.map((state, at) => {
    const values = shares[at]
    const inView = values.filter((share, i) => share !== null && isIn[i])
    return { state, at, values, mean: inView.reduce((sum, share) => sum + share, 0) / (inView.length || 1) }
  }).filter(({ mean, values }) => mean >= WORTH || values.some((share) => share >= PEAK))
  found.sort((one, other) => IDLE.has(one.state) - IDLE.has(other.state) || other.mean - one.mean)
  const isBusy = x.length > 0 && found.some(({ state, mean }) => !IDLE.has(state) && mean >= BUSY)
  return { part, x, states: found, isBusy }
}
