/** Where the time goes: for each part of a training the shares of its states, stacked over the run. */

import { h, put } from "./dom.js"
import { percent } from "./format.js"
import { makePanel } from "./panel.js"
import { curveColor, color, onTheme } from "./theme.js"

const IDLE = new Set(["waiting", "idle", "starved"])
const COLORS = new Map(Object.entries({
  learning: 0, computing: 0, running: 0, playing: 0, writing: 0, stepping: 0, observing: 2, acting: 1, handover: 4, gathering: 4,
  scoring: 2, committing: 1, saving: 3, publishing: 5, delivering: 6, staging: 7, blocked: 1, resetting: 3, starting: 6, finishing: 6, offloaded: 5,
}))
const ORDER = ["learner", "actors", "inference", "loop", "evaluator", "writer", "checkpoints"]
const WORTH = 0.005

/** Make the section; `options(name)` are those of a panel, `update(answer, x, from, to)` draws the shares of `api/runs/<id>/shares`. */
export function makeShares(options, zoom) {
  const grid = h("div", { class: "shares" })
  const verdict = h("div", { class: "verdict" })
  const element = h("section", { class: "block", "aria-label": "Where the time goes", hidden: true }, h("h2", { class: "block-title" }, "Where the time goes"), verdict, grid)
  const panels = new Map()
  let parts = []
  const endTheme = onTheme(() => parts.forEach(showLegend))

  const paint = (state, at) => (IDLE.has(state) ? "idle" : COLORS.get(state) ?? at % 8)

  function showLegend(part) {
    const panel = panels.get(part.part)
    put(panel.legend, part.shown.map(({ state, mean, at }) => {
      const name = paint(state, at)
      return h("span", {}, h("span", { class: "swatch square", style: { background: typeof name === "string" ? color(name) : curveColor(name) } }), state, h("b", {}, percent(mean)))
    }))
  }

  return {
    element,
    update(answer, x, from, to) {
      parts = [...answer.parts].sort((a, b) => (ORDER.indexOf(a.part) + 99) % 99 - (ORDER.indexOf(b.part) + 99) % 99).map((part) => {
        const states = part.states.map((state, at) => {
          const inView = part.shares[at].filter((share, i) => share !== null && (from === null || part.x[i] >= from) && (to === null || part.x[i] <= to))
          return { state, at, values: part.shares[at], mean: inView.reduce((sum, share) => sum + share, 0) / (inView.length || 1) }
        })
        // Idle time lies on top, so that what a part does grows from the ground.
        const shown = states.filter(({ mean, values }) => mean >= WORTH || values.some((share) => share >= 0.05))
        shown.sort((a, b) => IDLE.has(a.state) - IDLE.has(b.state) || b.mean - a.mean)
        return { ...part, shown, isIdle: shown.every(({ state, mean }) => IDLE.has(state) || mean < 0.02) }
      }).filter((part) => part.x.length && part.shown.length && !part.isIdle)
      element.hidden = parts.length === 0 && verdict.childElementCount === 0
      for (const [name, panel] of panels) {
        if (parts.some((part) => part.part === name)) continue
        panel.panel.destroy()
        panels.delete(name)
      }
      for (const part of parts) {
        if (!panels.has(part.part)) {
          const legend = h("div", { class: "legend" })
          const title = part.part.charAt(0).toUpperCase() + part.part.slice(1)
          const panel = makePanel({
            ...options(`time of ${part.part}`), title: `${title}: where its time goes`, short: title,
            isShare: true, isSmall: true, height: 110, legend,
          })
          panel.chart.onZoom(zoom)
          grid.append(panel.element)
          panels.set(part.part, { panel, legend })
        }
        const { panel } = panels.get(part.part)
        panel.setX(x)
        // The value in the head would repeat the legend.
        panel.setData(part.shown.map(({ state, values, at }) => ({ label: state, kind: "stack", x: part.x, y: values, color: paint(state, at), alpha: IDLE.has(state) ? 0.6 : 0.8 })))
        showLegend(part)
      }
    },
    setExplanation(explanation) {
      if (!explanation) return
      const text = explanation.lines.join("\n")
      if (verdict.dataset.text !== text) {
        verdict.dataset.text = text
        // The verdict is the last paragraph of the report; the shares before it are what the charts show.
        const paragraphs = text.split(/\n\s*\n/)
        const [head, ...remedies] = paragraphs.at(-1).split("\n")
        put(verdict, h("p", { class: "verdict-head" }, head), remedies.map((line) => h("p", {}, line)),
          paragraphs.length > 1 ? h("details", {}, h("summary", {}, "Whole report"), h("pre", {}, paragraphs.slice(0, -1).join("\n\n"))) : null)
      }
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
