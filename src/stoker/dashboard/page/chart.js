/**
 * One chart: lines with bands, evaluations with whiskers, stacked shares, events on the x axis; crosshair with exact
 * values, zoom by dragging, wheel, pinch and keys. Built on uPlot; charts with the same `sync` share the crosshair.
 *
 * The chart asks for another range by `onZoom` and draws what `setData` and `setRange` say: whoever owns it fetches the
 * range at full resolution.
 */

import uPlot from "./vendor/uPlot.mjs"
import { h, put, say } from "./dom.js"
import { csvOf, pictureOf } from "./download.js"
import { clock, compact, exact, number, percent, position, tickTexts } from "./format.js"
import { follow, keyed } from "./gestures.js"
import { align, nearest, yRange } from "./layers.js"
import { paintEvents, paintWhiskers } from "./marks.js"
import { hideTip, showTip } from "./tip.js"
import { color, curveColor, curveDash, faded, onTheme } from "./theme.js"

const TIME_STEPS = [0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 604800]
const TIP_ROWS = 12

/**
 * Make a chart within an element, as wide as that is.
 *
 * Options: `title` (its name for screen readers and files), `x` ("steps", "episodes" or "time"), `height` in pixels,
 * `sync` (a name: charts of the same name share the crosshair), `isShare` (values are shares of 1), `isSmall` (fewer
 * ticks), `clipsBands` (the y axis is that of the lines, with bands cut where they are far wider), `empty` (what it says
 * without values), `onHover(values | null)` (what is below the crosshair, here or on a chart in sync: `[{label, value}]`).
 *
 * A layer is `{label, x, y, kind, low, high, color, dash, width, alpha, opacity, fill, best, note, isQuiet}`: `kind` is
 * "line" (default), "points" (with whiskers from low to high; `best` is the index of the marked one) or "stack"; low and high draw a
 * band as opaque as `alpha`; `color` is the number of a curve color, or a name of the style sheet's; `note(i)` is a
 * text beside the value of a point in the tooltip, where a quiet layer is not.
 */
export function makeChart(element, options) {
  const plan = { x: "steps", height: 240, sync: null, isShare: false, isSmall: false, clipsBands: false, onHover: null, empty: "No values", ...options }
  const state = { layers: [], events: [], scale: "linear", from: null, to: null, isHovered: false, isAt: null, hasData: false }
  let plot = null
  let shape = null
  let places = []
  const zoomed = new Set()
  const spoken = h("p", { class: "hidden-text", "aria-live": "polite" })
  const box = h("div", { class: "chart-box", tabindex: 0, role: "img", "aria-label": plan.title, onkeydown: key })
  box.style.setProperty("height", `${plan.height}px`)
  const nothing = h("p", { class: "chart-empty", hidden: true }, plan.empty)
  element.append(box, spoken)

  const observer = new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth)
    if (plot && width > 0 && width !== plot.width) plot.setSize({ width, height: plan.height })
    else if (!plot) draw()
  })
  observer.observe(box)
  const endTheme = onTheme(() => { shape = null; draw() })

  const paint = (layer, at) => (typeof layer.color === "string" ? color(layer.color) : curveColor(layer.color ?? at))
  const valueText = plan.isShare ? (v) => percent(v, 1) : exact

  function draw() {
    const width = Math.floor(box.clientWidth)
    if (width <= 0) return
    const aligned = align(state.layers)
    places = aligned.places
    const now = JSON.stringify([plan.x, plan.height, state.scale, aligned.hasNegative, aligned.largest > 10, state.layers.map((l) => [l.label, l.kind, l.color, l.dash, l.width, l.alpha, !!l.low])])
    if (plot && now === shape) {
      plot.setData(aligned.data, false)
      plot.batch(() => rescale())
      plot.redraw(false)
    } else {
      plot?.destroy()
      plot = new uPlot(build(width, aligned), aligned.data, box)
      shape = now
      follow(plot, {
        reach, zoom,
        show(from, to) {
          state.from = from
          state.to = to
          rescale()
        },
        hover(isOn) {
          state.isHovered = isOn
          if (isOn) state.isAt = null
          else hideTip()
        },
      })
    }
    box.setAttribute("aria-label", summary())
    const isEmpty = state.layers.every((layer) => layer.y.every((value) => value === null || value === undefined))
    if (nothing.parentNode !== box) box.append(nothing)
    nothing.hidden = !isEmpty || !state.hasData
    plot.root.style.setProperty("visibility", isEmpty ? "hidden" : "visible")
  }

  function rescale() {
    const [from, to] = reach()
    plot.setScale("x", { min: from, max: to })
  }

  /** The range that is shown: what was set, else all that the layers hold. */
  function reach() {
    let [low, high] = [Infinity, -Infinity]
    for (const { x } of state.layers) {
      if (!x.length) continue
      low = Math.min(low, x[0])
      high = Math.max(high, x[x.length - 1])
    }
    if (low > high) [low, high] = [0, 1]
    const [from, to] = [state.from ?? low, state.to ?? high]
    return to > from ? [from, to] : [from - 0.5, from + 0.5]
  }

  /** The range of the lines, and of bands up to a third of it beyond: the interval of two runs may be far wider. */
  function withBands(low, high) {
    if (!plan.clipsBands || low === null || low === undefined) return [low, high]
    const most = (high - low) / 3 || Math.abs(low) / 10 || 1
    const [from, to] = reach()
    let [bottom, top] = [low, high]
    for (const layer of state.layers) {
      layer.low?.forEach((_, i) => {
        if (layer.x[i] < from || layer.x[i] > to || layer.low[i] === null) return
        bottom = Math.min(bottom, Math.max(layer.low[i], low - most))
        top = Math.max(top, Math.min(layer.high[i], high + most))
      })
    }
    return [bottom, top]
  }

  function build(width, aligned) {
    const series = [{}]
    const bands = []
    state.layers.forEach((layer, at) => {
      const stroke = paint(layer, at)
      const place = places[at]
      if (place.high !== null) {
        const edge = { stroke: faded(stroke, layer.alpha ?? 0.28), width: 1, points: { show: false }, label: "", auto: !plan.clipsBands }
        series[place.high] = { ...edge }
        series[place.low] = { ...edge }
        if (layer.kind !== "points" || layer.x.length > width / 14) {
          bands.push({ series: [place.high, place.low], fill: faded(stroke, (layer.alpha ?? 0.28) * 0.6) })
        } else {
          series[place.high].stroke = series[place.low].stroke = "transparent"
        }
      }
      if (layer.kind === "stack") bands.push({ series: [place.y, place.below], fill: faded(stroke, layer.alpha ?? 0.85) })
      const isDotted = layer.kind === "points"
      series[place.y] = {
        label: layer.label,
        alpha: layer.opacity ?? 1,
        stroke: layer.kind === "stack" ? "transparent" : stroke,
        width: layer.width ?? (isDotted ? 1.25 : 1.75),
        dash: layer.dash ?? (typeof layer.color === "string" ? undefined : curveDash(layer.color ?? at)),
        points: isDotted ? { show: layer.x.length <= width / 7, size: 6, fill: color("panel"), stroke, width: 1.5 } : { show: layer.x.length === 1, size: 6 },
        fill: layer.fill ? faded(stroke, layer.fill) : undefined,
      }
      if (layer.kind === "stack" && place.below === place.floor) {
        series[place.floor] = { stroke: "transparent", points: { show: false }, label: "" }
      }
    })
    const axis = {
      stroke: () => color("muted"), font: `11px ${getComputedStyle(document.body).fontFamily}`,
      ticks: { show: false }, border: { show: false },
    }
    const isLog = state.scale === "log"
    // Around zero a logarithm has no place: large values get the inverse hyperbolic sine, small ones stay linear.
    const distr = !isLog ? 1 : !aligned.hasNegative ? 3 : aligned.largest > 10 ? 4 : 1
    return {
      width, height: plan.height, series, bands, padding: [10, 16, 0, 0], legend: { show: false },
      scales: {
        x: { time: false, range: () => reach() },
        y: {
          distr,
          range: plan.isShare ? [0, 1] : distr === 3 ? undefined : (_, low, high) => yRange(...withBands(low, high)),
        },
      },
      axes: [
        {
          ...axis, size: 26, gap: 6, space: plan.isSmall ? 70 : 90, grid: { show: false },
          incrs: plan.x === "time" ? TIME_STEPS : undefined,
          values: (_, ticks, _axis, _space, step) => (plan.x === "time" ? ticks.map((tick) => (tick === null ? "" : clock(tick, step))) : tickTexts(ticks, step)),
        },
        {
          ...axis, size: 50, gap: 6, space: plan.isSmall ? 28 : 36, grid: { stroke: () => color("grid"), width: 1 },
          values: (_, ticks, _axis, _space, step) => (plan.isShare ? ticks.map((tick) => percent(tick)) : distr === 1 ? tickTexts(ticks, step) : ticks.map((tick) => (tick === null ? "" : compact(tick)))),
        },
      ],
      cursor: {
        x: true, y: false,
        points: { size: 7, width: 2, fill: (u, i) => u.series[i]._stroke ?? color("text"), show: pointOf },
        drag: { x: true, y: false, setScale: false, dist: 5 },
        bind: { dblclick: () => () => { zoom(null, null); return null } },
        dataIdx: (u, i, at) => nearest(u.data[0], u.data[i], at),
        // A drag on one chart zooms once: the others would each take it for one of their own.
        sync: plan.sync ? { key: plan.sync, setSeries: false, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave", sub: () => true } } : undefined,
      },
      hooks: {
        setSelect: [selected],
        setCursor: [moved],
        drawAxes: [(u) => paintEvents(u, state.events)],
        draw: [(u) => paintWhiskers(u, state.layers, places, paint)],
      },
    }
  }

  /** A dot on the curves alone: edges of bands and shares have none. */
  function pointOf(u, i) {
    const at = places.findIndex((place) => place.y === i)
    if (at < 0 || state.layers[at].kind === "stack" || state.layers[at].isQuiet) return false
    const dot = h("div", { class: "chart-dot" })
    dot.style.setProperty("background", paint(state.layers[at], at))
    return dot
  }

  function selected(u) {
    const { left, width } = u.select
    if (width <= 0) return
    const [from, to] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")]
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
    if (width > 4) zoom(from, to)
  }

  /** What is below the crosshair: one entry for each layer that has a value near it. */
  function valuesAt(u) {
    const found = []
    const [from, to] = reach()
    state.layers.forEach((layer, at) => {
      const place = places[at]
      const row = u.cursor.idxs?.[place.y]
      if (row === null || row === undefined || layer.isQuiet) return
      const index = place.index[row]
      if (index === undefined || index < 0) return
      const x = layer.x[index]
      if (x < from || x > to) return
      found.push({
        label: layer.label, value: layer.y[index], low: layer.low?.[index], high: layer.high?.[index],
        x, color: paint(layer, at), note: layer.note?.(index),
        y: u.valToPos(layer.y[index], "y"),
      })
    })
    return found
  }

  function moved(u) {
    const isIn = u.cursor.left >= 0 && u.cursor.idx !== null && u.cursor.idx !== undefined
    const found = isIn ? valuesAt(u) : null
    plan.onHover?.(found)
    if (!isIn || !(state.isHovered || state.isAt !== null)) {
      if (state.isHovered || state.isAt !== null) hideTip()
      return
    }
    const x = u.posToVal(u.cursor.left, "x")
    let rows = found
    if (rows.length > TIP_ROWS) {
      rows = [...rows].sort((a, b) => Math.abs(a.y - u.cursor.top) - Math.abs(b.y - u.cursor.top)).slice(0, TIP_ROWS)
      rows = found.filter((row) => rows.includes(row))
    }
    const near = state.events.filter((event) => Math.abs(u.valToPos(event.x, "x") - u.cursor.left) < 5).slice(0, 5)
    const head = rows.length ? rows[0].x : x
    const edges = u.over.getBoundingClientRect()
    showTip(edges, u.cursor.left, u.cursor.top, position(plan.x, Math.round(head * 100) / 100), rows, near, {
      text: valueText, xText: (v) => position(plan.x, Math.round(v * 100) / 100), head, hidden: found.length - rows.length,
    })
    if (state.isAt !== null) say(spoken, `${position(plan.x, Math.round(head))}: ${rows.map((r) => `${r.label} ${valueText(r.value)}`).join(", ")}`)
  }

  function zoom(from, to) {
    for (const callback of zoomed) callback(from, to)
  }

  /** Arrows move the crosshair, plus and minus zoom at it, Home shows all. */
  function key(event) {
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return
    const [from, to] = reach()
    const done = keyed(event, { from, to, at: state.isAt ?? (from + to) / 2 }, {
      moveTo(at) {
        state.isAt = at
        plot.setCursor({ left: plot.valToPos(at, "x"), top: plot.over.clientHeight / 3 })
      },
      zoom,
      leave() {
        if (state.isAt === null) return false
        blur()
        return true
      },
    })
    if (!done) return
    event.preventDefault()
    event.stopPropagation()
  }

  function blur() {
    state.isAt = null
    plot?.setCursor({ left: -10, top: -10 })
    hideTip()
  }
  const touchedElsewhere = (event) => {
    if (!state.isHovered || box.contains(event.target)) return
    state.isHovered = false
    blur()
  }
  document.addEventListener("pointerdown", touchedElsewhere)
  box.addEventListener("blur", () => { if (state.isAt !== null) blur() })

  function summary() {
    const told = state.layers.filter((layer) => !layer.isQuiet && layer.y.length).map((layer) => {
      const last = layer.y.findLast((value) => value !== null && value !== undefined)
      return `${layer.label} ${last === undefined ? "without values" : `at last ${valueText(last)}`}`
    })
    return `${plan.title}. ${told.length ? told.slice(0, 6).join(", ") : "No data"}. Arrow keys read values, plus and minus zoom.`
  }

  return {
    element: box,
    setData(layers) { state.hasData = true; state.layers = layers.map((layer) => ({ kind: "line", ...layer })); draw() },
    setEvents(events) { state.events = events; plot?.redraw(false) },
    setScale(scale) { if (scale !== state.scale) { state.scale = scale; draw() } },
    setX(x) { plan.x = x; draw() },
    /** Let the layers for which `isOn(layer)` stand out; null ends it. */
    highlight(isOn) {
      if (!plot) return
      state.layers.forEach((layer, at) => {
        const alpha = (layer.opacity ?? 1) * (isOn === null || isOn(layer) ? 1 : 0.25)
        for (const column of [places[at].y, places[at].low, places[at].high]) if (column !== null) plot.series[column].alpha = alpha
      })
      plot.redraw(false)
    },
    setHeight(height) { plan.height = height; box.style.setProperty("height", `${height}px`); draw() },
    setRange(from, to) {
      state.from = from
      state.to = to
      if (plot) rescale()
    },
    range: () => reach(),
    onZoom(callback) { zoomed.add(callback); return () => zoomed.delete(callback) },
    toPng: (told) => picture(plot, state.layers, plan, paint, told),
    toCsv: () => table(state.layers, plan.x),
    destroy() {
      observer.disconnect()
      document.removeEventListener("pointerdown", touchedElsewhere)
      endTheme()
      hideTip()
      plot?.destroy()
      put(element)
    },
  }
}

/** The chart as a PNG with its title and legend, on the page's own background; `told` replaces parts of these. */
function picture(plot, layers, plan, paint, told) {
  const { canvas } = plot.ctx
  const entries = layers.map((layer, at) => ({ ...layer, color: paint(layer, at), dash: layer.dash ?? [] })).filter((layer) => !layer.isQuiet)
  const colors = { background: color("panel"), text: color("text"), muted: color("muted") }
  return pictureOf(canvas, { title: plan.title, subtitle: "", entries, colors, ratio: canvas.width / plot.width, ...told })
}

/** What is drawn, as CSV: one row for each point of a layer. The API gives every point. */
function table(layers, x) {
  const rows = layers.flatMap((layer) => layer.x.map((at, i) => [layer.label, at, layer.y[i], layer.low?.[i], layer.high?.[i]]))
  return csvOf(["series", x, "value", "low", "high"], rows)
}
