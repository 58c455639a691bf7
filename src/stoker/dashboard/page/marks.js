/** What uPlot does not draw: whiskers, the best evaluation, events on the x axis. */

import { color, faded } from "./theme.js"

const MOST_EVENTS = 400

/** Intervals of the evaluations as whiskers, and a ring around the best. */
export function paintWhiskers(u, layers, places, paint) {
  const { ctx } = u
  const ratio = devicePixelRatio
  ctx.save()
  ctx.beginPath()
  const edge = 9 * ratio // what marks the last point may stand out
  ctx.rect(u.bbox.left - edge, u.bbox.top - edge, u.bbox.width + 2 * edge, u.bbox.height + edge)
  ctx.clip()
  layers.forEach((layer, at) => {
    if (layer.kind !== "points") return
    const stroke = paint(layer, at)
    if (layer.low && layer.x.length <= u.width / 14) {
      ctx.strokeStyle = faded(stroke, 0.75)
      ctx.lineWidth = 1.25 * ratio
      ctx.beginPath()
      layer.x.forEach((x, i) => {
        if (layer.low[i] === null || layer.high[i] === null || layer.low[i] === layer.high[i]) return
        const left = u.valToPos(x, "x", true)
        const [low, high] = [u.valToPos(layer.low[i], "y", true), u.valToPos(layer.high[i], "y", true)]
        const wing = 3 * ratio
        ctx.moveTo(left, low)
        ctx.lineTo(left, high)
        for (const y of [low, high]) {
          ctx.moveTo(left - wing, y)
          ctx.lineTo(left + wing, y)
        }
      })
      ctx.stroke()
    }
    if (layer.best !== null && layer.best !== undefined && layer.best >= 0 && layer.y[layer.best] !== null) {
      const left = u.valToPos(layer.x[layer.best], "x", true)
      const top = u.valToPos(layer.y[layer.best], "y", true)
      ctx.lineWidth = 2 * ratio
      ctx.strokeStyle = stroke
      ctx.fillStyle = stroke
      ctx.beginPath()
      ctx.arc(left, top, 3 * ratio, 0, 7)
      ctx.fill()
      ctx.beginPath()
      ctx.arc(left, top, 7 * ratio, 0, 7)
      ctx.stroke()
    }
  })
  ctx.restore()
}

/** Events: a line for what interrupts a run, a small sign at the bottom for the rest. */
export function paintEvents(u, events) {
  const { ctx } = u
  const ratio = devicePixelRatio
  const { left: edge, top, width, height } = u.bbox
  const { min, max } = u.scales.x
  ctx.save()
  ctx.beginPath()
  ctx.rect(edge, top, width, height)
  ctx.clip()
  const shown = events.filter(({ x }) => x >= min && x <= max).slice(-MOST_EVENTS)
  for (const { x, sign } of shown) {
    const left = Math.round(u.valToPos(x, "x", true)) + 0.5
    const base = top + height
    ctx.lineWidth = ratio
    if (sign === "resume" || sign === "stall" || sign === "failed") {
      ctx.strokeStyle = color(sign === "resume" ? "muted" : sign === "stall" ? "warning" : "error")
      ctx.setLineDash([3 * ratio, 3 * ratio])
      ctx.beginPath()
      ctx.moveTo(left, top)
      ctx.lineTo(left, base)
      ctx.stroke()
      ctx.setLineDash([])
    } else if (sign === "best") {
      ctx.fillStyle = color("second")
      ctx.beginPath()
      ctx.moveTo(left - 4 * ratio, base)
      ctx.lineTo(left + 4 * ratio, base)
      ctx.lineTo(left, base - 6 * ratio)
      ctx.fill()
    } else {
      ctx.strokeStyle = color("muted")
      ctx.beginPath()
      ctx.moveTo(left, base - 5 * ratio)
      ctx.lineTo(left, base)
      ctx.stroke()
    }
  }
  ctx.restore()
}
