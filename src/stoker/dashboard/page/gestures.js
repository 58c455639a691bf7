/** The pointer, the wheel, fingers and keys on a chart. uPlot itself knows the mouse alone. */

const SETTLES_MS = 180

/**
 * Follow what is done on a plot. `reach()` is the range that is shown, `show(from, to)` draws another one at once,
 * `zoom(from, to)` is called when it is settled, and `hover(isOn)` when the pointer comes and goes.
 */
export function follow(plot, { reach, show, zoom, hover }) {
  const { over } = plot
  const leftOf = (event) => event.clientX - over.getBoundingClientRect().left
  const point = (event) => plot.setCursor({ left: leftOf(event), top: event.clientY - over.getBoundingClientRect().top })

  over.addEventListener("pointerenter", () => hover(true))
  over.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") hover(false) // a touched value stays until another place is touched
  })

  let settling = null
  over.addEventListener("wheel", (event) => {
    const [from, to] = reach()
    const span = to - from
    let next
    if (event.ctrlKey || event.metaKey) {
      const factor = Math.exp(Math.max(-1, Math.min(1, event.deltaY * 0.01)))
      const middle = from + (span * leftOf(event)) / over.clientWidth
      next = [middle - (middle - from) * factor, middle + (to - middle) * factor]
    } else if (event.shiftKey) {
      const way = ((event.deltaX || event.deltaY) / over.clientWidth) * span
      next = [from + way, to + way]
    } else return
    event.preventDefault()
    show(...next)
    clearTimeout(settling)
    settling = setTimeout(() => zoom(...next), SETTLES_MS)
  }, { passive: false })

  const fingers = new Map()
  let pinch = null
  const spread = () => [...fingers.values()].sort((one, other) => one - other)
  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") return
    fingers.set(event.pointerId, leftOf(event))
    if (fingers.size === 2) {
      const [a, b] = spread()
      pinch = { from: plot.posToVal(a, "x"), to: plot.posToVal(b, "x"), next: null }
      hover(false)
    } else {
      hover(true)
      point(event)
    }
  })
  over.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return
    fingers.set(event.pointerId, leftOf(event))
    if (!pinch) {
      point(event)
      return
    }
    const [a, b] = spread()
    if (b - a < 8) return
    const each = (pinch.to - pinch.from) / (b - a)
    pinch.next = [pinch.from - a * each, pinch.from + (over.clientWidth - a) * each]
    show(...pinch.next)
  })
  const lift = (event) => {
    if (!fingers.delete(event.pointerId) || !pinch || fingers.size > 1) return
    if (pinch.next) zoom(...pinch.next)
    pinch = null
  }
  over.addEventListener("pointerup", lift)
  over.addEventListener("pointercancel", (event) => {
    lift(event)
    hover(false)
  })
}

/**
 * Do what a key asks of a chart: arrows move the crosshair, with Shift in larger steps; plus and minus zoom at it; Home
 * shows all; Escape leaves. Returns whether the key asked for anything.
 */
export function keyed({ key, shiftKey }, { from, to, at }, { moveTo, zoom, leave }) {
  const way = (to - from) / (shiftKey ? 10 : 100)
  const factor = key === "-" ? 2 : 0.5
  switch (key) {
    case "ArrowLeft":
      moveTo(Math.max(from, at - way))
      return true
    case "ArrowRight":
      moveTo(Math.min(to, at + way))
      return true
    case "+":
    case "=":
    case "-":
      zoom(at - (at - from) * factor, at + (to - at) * factor)
      return true
    case "Home":
    case "0":
      zoom(null, null)
      return true
    case "Escape":
      return leave()
    default:
      return false
  }
}
