/** The whole run in a strip, and a window in it that can be moved and resized: with the pointer, a finger, or keys. */

import { h } from "./dom.js"
import { compact, duration } from "./format.js"
import { color, faded, onTheme } from "./theme.js"

const HEIGHT = 40

/** Make a strip; `chosen(from, to)` is called with a new window, or with nulls for the whole. */
export function makeBrush(element, chosen) {
  let curve = { x: [], y: [] }
  let domain = [0, 1]
  let range = null
  let axis = "steps"
  const canvas = h("canvas", { class: "brush-curve", "aria-hidden": "true" })
  const handle = (label) => h("span", {
    class: "brush-handle", tabindex: 0, role: "slider", "aria-label": label, "aria-orientation": "horizontal",
  })
  const left = handle("Beginning of the range")
  const right = handle("End of the range")
  const pane = h("div", { class: "brush-window" }, left, right)
  const box = h("div", { class: "brush", title: "Drag to choose a range; double click for all" }, canvas, pane)
  element.append(box)

  const span = () => domain[1] - domain[0] || 1
  const share = (value) => Math.max(0, Math.min(1, (value - domain[0]) / span()))
  const valueAt = (event) => {
    const edges = box.getBoundingClientRect()
    return domain[0] + Math.max(0, Math.min(1, (event.clientX - edges.left) / edges.width)) * span()
  }

  function place() {
    const [from, to] = range ?? domain
    pane.style.setProperty("left", `${share(from) * 100}%`)
    pane.style.setProperty("right", `${(1 - share(to)) * 100}%`)
    box.classList.toggle("whole", range === null)
    const told = axis === "time" ? duration : compact
    for (const [end, value] of [[left, from], [right, to]]) {
      end.setAttribute("aria-valuemin", String(domain[0]))
      end.setAttribute("aria-valuemax", String(domain[1]))
      end.setAttribute("aria-valuenow", String(Math.round(value * 100) / 100))
      end.setAttribute("aria-valuetext", told(value))
    }
  }

  function paint() {
    const ratio = devicePixelRatio
    const width = box.clientWidth
    if (!width) return
    canvas.width = width * ratio
    canvas.height = HEIGHT * ratio
    const pen = canvas.getContext("2d")
    pen.scale(ratio, ratio)
    const known = curve.y.map((y, i) => [curve.x[i], y]).filter(([, y]) => y !== null && y !== undefined)
    if (known.length < 2) return
    const low = known.reduce((least, [, y]) => Math.min(least, y), Infinity)
    const high = known.reduce((most, [, y]) => Math.max(most, y), -Infinity)
    pen.beginPath()
    const heightOf = (y) => HEIGHT - 5 - ((y - low) / (high - low || 1)) * (HEIGHT - 10)
    for (const [x, y] of known) pen.lineTo(share(x) * width, heightOf(y))
    pen.strokeStyle = faded(color("accent"), 0.8)
    pen.lineWidth = 1.25
    pen.stroke()
    pen.lineTo(share(known.at(-1)[0]) * width, HEIGHT)
    pen.lineTo(share(known[0][0]) * width, HEIGHT)
    pen.fillStyle = faded(color("accent"), 0.1)
    pen.fill()
  }

  function choose(from, to) {
    const least = span() / 500
    if (to - from < least || (from <= domain[0] + least && to >= domain[1] - least)) {
      range = null
      place()
      chosen(null, null)
    } else {
      range = [from, to]
      place()
      chosen(from, to)
    }
  }

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return
    event.preventDefault()
    const began = valueAt(event)
    const before = range ?? domain
    const parts = new Map([[left, "left"], [right, "right"], [pane, range ? "move" : "new"]])
    const part = parts.get(event.target) ?? "new"
    let now = null
    box.setPointerCapture(event.pointerId)
    const move = (next) => {
      const value = valueAt(next)
      if (part === "left") now = [Math.min(value, before[1]), before[1]]
      else if (part === "right") now = [before[0], Math.max(value, before[0])]
      else if (part === "new") now = [Math.min(began, value), Math.max(began, value)]
      else {
        const way = Math.max(domain[0] - before[0], Math.min(domain[1] - before[1], value - began))
        now = [before[0] + way, before[1] + way]
      }
      range = now
      place()
    }
    const end = () => {
      box.removeEventListener("pointermove", move)
      box.removeEventListener("pointerup", end)
      box.removeEventListener("pointercancel", end)
      if (now) choose(...now)
    }
    box.addEventListener("pointermove", move)
    box.addEventListener("pointerup", end)
    box.addEventListener("pointercancel", end)
  })
  box.addEventListener("dblclick", () => choose(...domain))
  pane.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return
    const way = (event.key === "ArrowLeft" ? -1 : 1) * span() * (event.shiftKey ? 0.1 : 0.02)
    const [from, to] = range ?? domain
    event.preventDefault()
    event.stopPropagation()
    if (event.target === left) choose(Math.max(domain[0], Math.min(to, from + way)), to)
    else choose(from, Math.min(domain[1], Math.max(from, to + way)))
  })

  const observer = new ResizeObserver(paint)
  observer.observe(box)
  const endTheme = onTheme(paint)
  return {
    setData(x, y, from, to, kind) {
      curve = { x, y }
      domain = [from, to]
      axis = kind
      paint()
      place()
    },
    setRange(from, to) {
      range = from === null && to === null ? null : [from ?? domain[0], to ?? domain[1]]
      place()
    },
    destroy() {
      observer.disconnect()
      endTheme()
      box.remove()
    },
  }
}
