/** How a chart looks: its layers, axes and crosshair as the options of uPlot. */

import { h } from "./dom.js"
import { clock, compact, percent, tickTexts } from "./format.js"
import { nearest, yRange } from "./layers.js"
import { color, curveDash, faded } from "./theme.js"

const TIME_STEPS = [
  0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 604800,
]
const [LINEAR, LOG, ASINH] = [1, 3, 4]
const HIDDEN = { stroke: "transparent", points: { show: false }, label: "" }
const BAND = 0.28
const STACK = 0.85
const DOT_SPACE = 7 // pixels for each point, below which points are not drawn
const WHISKER_SPACE = 14 // and below which whiskers become a band

/**
 * The distribution of the y axis. Around zero a logarithm has no place: large values get the inverse hyperbolic sine,
 * small ones stay linear.
 */
export function distributionOf(scale, { hasNegative, largest }) {
  if (scale !== "log") return LINEAR
  if (!hasNegative) return LOG
  return largest > 10 ? ASINH : LINEAR
}

/**
 * The options of uPlot. `plan` and `layers` are those of `makeChart`; `places` and `distribution` as `align` and
 * `distributionOf` give them; `reach()` is the range of x, `withBands(low, high)` widens that of y.
 */
export function drawing({ plan, layers, places, width, distribution, reach, withBands, paint, zoom }) {
  const { series, bands } = curves({ plan, layers, places, width, paint })
  const yOf = (_, low, high) => yRange(...withBands(low, high))
  return {
    width, height: plan.height, series, bands, axes: axes(plan, distribution),
    padding: [10, 16, 0, 0], legend: { show: false },
    scales: {
      x: { time: false, range: () => reach() },
      y: { distr: distribution, range: plan.isShare ? [0, 1] : distribution === LOG ? undefined : yOf },
    },
    cursor: {
      x: true, y: false,
      points: { size: 7, width: 2, show: (_, i) => dot(i, { layers, places, paint }) },
      drag: { x: true, y: false, setScale: false, dist: 5 },
      bind: { dblclick: () => () => { zoom(null, null); return null } },
      dataIdx: (u, i, at) => nearest(u.data[0], u.data[i], at),
      sync: plan.sync ? synced(plan.sync) : undefined,
    },
  }
}

/** A drag on one chart zooms once: the others would each take it for one of their own. */
function synced(key) {
  const pub = (type) => type === "mousemove" || type === "mouseleave"
  return { key, setSeries: false, scales: ["x", null], filters: { pub, sub: () => true } }
}

function curves({ plan, layers, places, width, paint }) {
  const series = [{}]
  const bands = []
  layers.forEach((layer, at) => {
    const stroke = paint(layer, at)
    const place = places[at]
    if (place.high !== null) {
      const isWhisker = layer.kind === "points" && layer.x.length <= width / WHISKER_SPACE
      const alpha = layer.alpha ?? BAND
      const edge = { ...HIDDEN, stroke: isWhisker ? "transparent" : faded(stroke, alpha), width: 1, auto: !plan.clipsBands }
      series[place.high] = { ...edge }
      series[place.low] = { ...edge }
      if (!isWhisker) bands.push({ series: [place.high, place.low], fill: faded(stroke, alpha * 0.6) })
    }
    if (layer.kind === "stack") {
      bands.push({ series: [place.y, place.below], fill: faded(stroke, layer.alpha ?? STACK) })
      if (place.below === place.floor) series[place.floor] = { ...HIDDEN }
    }
    series[place.y] = line(layer, at, stroke, width)
  })
  return { series, bands }
}

function line(layer, at, stroke, width) {
  const isDotted = layer.kind === "points"
  const dots = { show: layer.x.length <= width / DOT_SPACE, size: 6, fill: color("panel"), stroke, width: 1.5 }
  return {
    label: layer.label,
    alpha: layer.opacity ?? 1,
    stroke: layer.kind === "stack" ? "transparent" : stroke,
    width: layer.width ?? (isDotted ? 1.25 : 1.75),
    dash: layer.dash ?? (typeof layer.color === "string" ? undefined : curveDash(layer.color ?? at)),
    points: isDotted ? dots : { show: layer.x.length === 1, size: 6 },
    fill: layer.fill ? faded(stroke, layer.fill) : undefined,
  }
}

function axes(plan, distribution) {
  const common = {
    stroke: () => color("muted"), font: `11px ${getComputedStyle(document.body).fontFamily}`, gap: 6,
    ticks: { show: false }, border: { show: false },
  }
  const each = (ticks, text) => ticks.map((tick) => (tick === null ? "" : text(tick)))
  const xTexts = (ticks, step) => (plan.x === "time" ? each(ticks, (tick) => clock(tick, step)) : tickTexts(ticks, step))
  const yTexts = (ticks, step) => {
    if (plan.isShare) return each(ticks, (tick) => percent(tick))
    return distribution === LINEAR ? tickTexts(ticks, step) : each(ticks, compact)
  }
  return [
    {
      ...common, size: 26, space: plan.isSmall ? 70 : 90, grid: { show: false },
      incrs: plan.x === "time" ? TIME_STEPS : undefined, values: (_u, ticks, _axis, _space, step) => xTexts(ticks, step),
    },
    {
      ...common, size: 50, space: plan.isSmall ? 28 : 36, grid: { stroke: () => color("grid"), width: 1 },
      values: (_u, ticks, _axis, _space, step) => yTexts(ticks, step),
    },
  ]
}

/** A dot below the crosshair on the curves alone: edges of bands and shares have none. */
function dot(column, { layers, places, paint }) {
  const at = places.findIndex((place) => place.y === column)
  if (at < 0 || layers[at].kind === "stack" || layers[at].isQuiet) return false
  return h("div", { class: "chart-dot", style: { background: paint(layers[at], at) } })
}
