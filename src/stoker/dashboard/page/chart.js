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
import { distributionOf, drawing } from "./drawing.js"
import { exact, percent, position } from "./format.js"
import { follow, keyed } from "./gestures.js"
import { align } from "./layers.js"
import { paintEvents, paintWhiskers } from "./marks.js"
import { hideTip, showTip } from "./tip.js"
import { color, curveColor, onTheme } from "./theme.js"

const TIP_ROWS = 12
const TIP_EVENTS = 5
const NEAR_PX = 5
const AHEAD = "300px 0px"
const DEFAULTS = {
  x: "steps", height: 240, sync: null, isShare: false, isSmall: false, clipsBands: false, onHover: null,
  empty: "No values",
}

/**
 * Make a chart within an element, as wide as that is.
 *
 * Options: `title` (its name for screen readers and files), `x` ("steps", "episodes" or "time"), `height` in pixels,
 * `sync` (a name: charts of the same name share the crosshair), `isShare` (values are shares of 1), `isSmall` (fewer
 * ticks), `clipsBands` (the y axis is that of the lines, with bands cut where they are far wider), `empty` (what it says
 * without values), `onHover(values | null)` (what is below the crosshair, here or on a chart in sync, as
 * `[{label, value}]`).
 *
 * A layer is `{label, x, y, kind, low, high, color, dash, width, alpha, opacity, fill, best, note, isQuiet}`: `kind` is
 * "line" (default), "points" (with whiskers from low to high; `best` is the index of the marked one) or "stack"; low and
 * high draw a band as opaque as `alpha`; `color` is the number of a curve color, or a name of the style sheet's; `note(i)`
 * is a text beside the value of a point in the tooltip, where a quiet layer is not.
 */
export function makeChart(element, options) {
  const plan = { ...DEFAULTS, ...options }
  const state = { layers: [], hasData: false, events: [], scale: "linear", from: null, to: null }
  Object.assign(state, { isHovered: false, isAt: null }) // the pointer is here; the keys are at this place
  Object.assign(state, { isSeen: false, isStale: true }) // it is in view; what is drawn is not what is known
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
  // A run may have hundreds of metrics: only the charts that are nearly in view are drawn.
  const sight = new IntersectionObserver((entries) => {
    state.isSeen = entries.at(-1).isIntersecting
    if (state.isSeen && state.isStale) draw()
  }, { rootMargin: AHEAD })
  sight.observe(box)
  const endTheme = onTheme(() => { shape = null; draw() })

  const paint = (layer, at) => (typeof layer.color === "string" ? color(layer.color) : curveColor(layer.color ?? at))
  const valueText = plan.isShare ? (v) => percent(v, 1) : exact

  function draw(isForced = false) {
    box.setAttribute("aria-label", summary())
    const width = Math.floor(box.clientWidth)
    state.isStale = !(state.isSeen || isForced) || width <= 0
    if (state.isStale) return
    const aligned = align(state.layers)
    places = aligned.places
    const distribution = distributionOf(state.scale, aligned)
    const looksOf = (layer) => [layer.label, layer.kind, layer.color, layer.dash, layer.width, layer.alpha, !!layer.low]
    const now = JSON.stringify([plan.x, plan.height, distribution, state.layers.map(looksOf)])
    if (plot && now === shape) {
      plot.setData(aligned.data, false)
      plot.batch(() => rescale())
      plot.redraw(false)
    } else {
      plot?.destroy()
      const { layers } = state
      const drawn = drawing({ plan, layers, places, width, distribution, reach, withBands, paint, zoom })
      plot = new uPlot({ ...drawn, hooks: hooks() }, aligned.data, box)
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

  const hooks = () => ({
    setSelect: [selected],
    setCursor: [moved],
    drawAxes: [(u) => paintEvents(u, state.events)],
    draw: [(u) => paintWhiskers(u, state.layers, places, paint)],
  })

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
    const near = state.events.filter(({ x }) => Math.abs(u.valToPos(x, "x") - u.cursor.left) < NEAR_PX)
    const rows = nearestRows(found, u.cursor.top)
    const head = rows.length ? rows[0].x : u.posToVal(u.cursor.left, "x")
    const place = (x) => position(plan.x, Math.round(x * 100) / 100)
    showTip(u.over.getBoundingClientRect(), u.cursor, {
      head: place(head), rows: rows.map((row) => ({ ...row, place: row.x === head ? null : place(row.x) })),
      events: near.slice(0, TIP_EVENTS), hidden: found.length - rows.length, text: valueText,
    })
    if (state.isAt === null) return
    say(spoken, `${place(head)}: ${rows.map(({ label, value }) => `${label} ${valueText(value)}`).join(", ")}`)
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
    const told = state.layers.filter((layer) => !layer.isQuiet && layer.y.length).slice(0, 6).map(({ label, y }) => {
      const last = y.findLast((value) => value !== null && value !== undefined)
      return `${label} ${last === undefined ? "without values" : `at last ${valueText(last)}`}`
    })
    return `${plan.title}. ${told.join(", ") || "No data"}. Arrow keys read values, plus and minus zoom.`
  }

  return {
    element: box,
    setData(layers) {
      state.hasData = true
      state.layers = layers.map((layer) => ({ kind: "line", ...layer }))
      draw()
    },
    setEvents(events) {
      state.events = events
      if (state.isSeen) plot?.redraw(false)
      else state.isStale = true
    },
    setScale(scale) {
      if (scale === state.scale) return
      state.scale = scale
      draw()
    },
    setX(x) {
      if (x === plan.x) return
      plan.x = x
      draw()
    },
    /** Let the layers for which `isOn(layer)` stand out; null ends it. */
    highlight(isOn) {
      if (!plot) return
      state.layers.forEach((layer, at) => {
        const alpha = (layer.opacity ?? 1) * (isOn === null || isOn(layer) ? 1 : 0.25)
        const { y, low, high } = places[at]
        for (const column of [y, low, high]) if (column !== null) plot.series[column].alpha = alpha
      })
      plot.redraw(false)
    },
    setHeight(height) {
      plan.height = height
      box.style.setProperty("height", `${height}px`)
      draw()
    },
    setRange(from, to) {
      state.from = from
      state.to = to
      if (plot && state.isSeen) rescale()
      else state.isStale = true
    },
    range: () => reach(),
    onZoom(callback) {
      zoomed.add(callback)
      return () => zoomed.delete(callback)
    },
    toPng(told) {
      draw(true)
      return picture(plot, state.layers, plan, paint, told)
    },
    toCsv: () => table(state.layers, plan.x),
    destroy() {
      observer.disconnect()
      sight.disconnect()
      document.removeEventListener("pointerdown", touchedElsewhere)
      endTheme()
      hideTip()
      plot?.destroy()
      put(element)
    },
  }
}

/** Of many values those that are nearest to the pointer, in the order of their layers. */
function nearestRows(found, top) {
  if (found.length <= TIP_ROWS) return found
  const far = (row) => Math.abs(row.y - top)
  const near = new Set([...found].sort((one, other) => far(one) - far(other)).slice(0, TIP_ROWS))
  return found.filter((row) => near.has(row))
}

/** The chart as a PNG with its title and legend, on the page's own background; `told` replaces parts of these. */
function picture(plot, layers, plan, paint, told) {
  const { canvas } = plot.ctx
  const entries = layers.map((layer, at) => ({ ...layer, color: paint(layer, at), dash: layer.dash ?? [] }))
    .filter((layer) => !layer.isQuiet)
  const colors = { background: color("panel"), text: color("text"), muted: color("muted") }
  const ratio = canvas.width / plot.width
  return pictureOf(canvas, { title: plan.title, subtitle: "", entries, colors, ratio, ...told })
}

/** What is drawn, as CSV: one row for each point of a layer. The API gives every point. */
function table(layers, x) {
  const rows = layers.flatMap(({ label, x: places, y, low, high }) =>
    places.map((at, i) => [label, at, y[i], low?.[i], high?.[i]]))
  return csvOf(["series", x, "value", "low", "high"], rows)
}
