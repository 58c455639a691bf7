/** A panel: title, the value below the crosshair, what can be taken away, and a chart. */

import { address, isReport } from "./api.js"
import { makeChart } from "./chart.js"
import { download, h, put } from "./dom.js"
import { exact, number, percent } from "./format.js"

const MOST_VALUES = 3

/**
 * Make a panel with a chart in it. Beside the chart's own options: `id` of the run, `names()` of the curves for the CSV
 * of all points, `file` (the stem of the files' names), `short` (the title on the page), `subtitle` (for the picture),
 * `level` (of the heading), `legend` and `extra` (elements below the head and among the tools).
 */
export function makePanel(options) {
  const { id, title, short = title, subtitle = "", file, names = null, level = "h3", legend = null, extra = null } = options
  const value = h("span", { class: "value" })
  const place = h("div", { class: "chart-place" })
  const hasAll = names !== null && !isReport()
  const csv = hasAll
    ? h("a", { class: "button quiet", download: `${file}.csv`, href: "#", ...labels("every point as CSV") }, "CSV")
    : h("button", { class: "quiet", onclick: saveCsv, ...labels("as CSV") }, "CSV")
  const png = h("button", { class: "quiet", onclick: savePng, ...labels("as PNG") }, "PNG")
  const element = h("section", { class: "panel chart-panel", "aria-label": title },
    h("div", { class: "panel-head" }, h(level, { title }, short), h("span", { class: "tools" }, extra, png, csv), value),
    legend, place)
  const chart = makeChart(place, { ...options, onHover: tell })
  const format = options.isShare ? (v) => percent(v, 1) : number
  let last = []

  function labels(what) {
    return { title: `Download ${what}`, "aria-label": `${title}: download ${what}` }
  }

  function saveCsv() {
    download(`${file}.csv`, new Blob([chart.toCsv()], { type: "text/csv" }))
  }

  async function savePng() {
    download(`${file}.png`, await chart.toPng({ subtitle }))
  }

  /** What is below the crosshair, or at the end. */
  function tell(found) {
    put(value, (found ?? last).slice(0, MOST_VALUES).map((one, at, all) => [
      all.length > 1 ? h("small", {}, `${one.label} `) : null,
      h("span", { title: exact(one.value) }, format(one.value)), at < all.length - 1 ? "  " : null,
    ]))
  }

  return {
    element, chart,
    setData(layers) {
      last = layers.filter((layer) => !layer.isQuiet).map(({ label, short: name = label, y }) => ({
        label: name, value: y.findLast((one) => one !== null && one !== undefined) ?? null,
      }))
      chart.setData(layers)
      tell(null)
    },
    setX(x) {
      chart.setX(x)
      if (hasAll) csv.href = address(`api/runs/${id}/series.csv`, { name: names(), x })
    },
    destroy() {
      chart.destroy()
      element.remove()
    },
  }
}
