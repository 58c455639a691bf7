/** A panel: title, the value below the crosshair, what can be taken away, and a chart. */

import { address, isReport } from "./api.js"
import { makeChart } from "./chart.js"
import { download, h, put } from "./dom.js"
import { exact, number, percent } from "./format.js"

/**
 * Make a panel with a chart in it. `options` are the chart's; beside them `names()` gives the curves for the CSV of all
 * points, `file` the stem of the files' names, `short` the title on the page, `subtitle` goes into the picture.
 */
export function makePanel({ id, title, short = title, subtitle = "", file, names, level = "h3", legend = null, extra = null, ...options }) {
  const value = h("span", { class: "value" })
  const place = h("div", { class: "chart-place" })
  let last = []
  const csv = isReport() || !names
    ? h("button", { class: "quiet", title: "Download as CSV", "aria-label": `${title}: download as CSV`, onclick: () => download(`${file}.csv`, new Blob([chart.toCsv()], { type: "text/csv" })) }, "CSV")
    : h("a", { class: "button quiet", title: "Download every point as CSV", "aria-label": `${title}: download every point as CSV`, download: `${file}.csv`, href: "#" }, "CSV")
  const tools = h("span", { class: "tools" }, extra,
    h("button", { class: "quiet", title: "Download as PNG", "aria-label": `${title}: download as PNG`, onclick: async () => download(`${file}.png`, await chart.toPng({ subtitle })) }, "PNG"), csv)
  const element = h("section", { class: "panel chart-panel", "aria-label": title },
    h("div", { class: "panel-head" }, h(level, { title }, short), tools, value), legend, place)
  const format = options.isShare ? (v) => percent(v, 1) : number
  const tell = (found) => put(value, (found ?? last).slice(0, 3).map((one, at, all) => [
    all.length > 1 ? h("small", {}, `${one.label} `) : null, h("span", { title: exact(one.value) }, format(one.value)), at < all.length - 1 ? "  " : null]))
  const chart = makeChart(place, { title, ...options, onHover: tell })
  return {
    element, chart,
    setData(layers) {
      last = layers.filter((layer) => !layer.isQuiet).map((layer) => ({ label: layer.short ?? layer.label, value: layer.y.findLast((y) => y !== null && y !== undefined) ?? null }))
      chart.setData(layers)
      tell(null)
    },
    setX(x) {
      chart.setX(x)
      if (csv.tagName === "A") csv.href = address(`api/runs/${id}/series.csv`, { name: names(), x })
    },
    destroy() {
      chart.destroy()
      element.remove()
    },
  }
}
