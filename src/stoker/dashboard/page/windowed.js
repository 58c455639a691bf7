/** A long list of which only the rows in view are in the document. Rows have fixed heights, and the window scrolls. */

const AHEAD = 10
const TOP_BARS = 100
const BOTTOM = 120

/**
 * Hold the rows of a list within `body`. `keyOf(entry)` tells entries apart, `heights()` gives the pixels of each kind,
 * `signatureOf(entry)` is what a row shows, as a text, and `makeRow(entry)` makes it: a row whose text is the same is
 * not made anew. `shown(entries)` is called with those in view.
 */
export function makeWindowed(body, { keyOf, heights, signatureOf, makeRow, shown }) {
  const drawn = new Map()
  let entries = []
  let tops = [0]
  let isAsked = false

  function measure() {
    const each = heights()
    tops = [0]
    for (const { kind } of entries) tops.push(tops[tops.length - 1] + each[kind])
    body.style.setProperty("height", `${tops[tops.length - 1]}px`)
  }

  /** The first entry that ends below a place. */
  function firstBelow(y) {
    let [low, high] = [0, entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (tops[middle + 1] <= y) low = middle + 1
      else high = middle
    }
    return low
  }

  function paint() {
    if (!body.isConnected) return
    const above = -body.getBoundingClientRect().top
    const from = Math.max(0, firstBelow(above) - AHEAD)
    const to = Math.min(entries.length, firstBelow(above + innerHeight) + AHEAD + 1)
    const kept = new Set()
    for (let at = from; at < to; at++) {
      const key = keyOf(entries[at])
      kept.add(key)
      place(rowOf(key, entries[at]), at)
    }
    for (const [key, row] of drawn) {
      if (kept.has(key)) continue
      row.element.remove()
      drawn.delete(key)
    }
    sort()
    shown(entries.slice(from, to))
  }

  function rowOf(key, entry) {
    const now = signatureOf(entry)
    const before = drawn.get(key)
    if (before?.now === now) return before
    const row = { element: makeRow(entry), now, top: null, at: null }
    drawn.set(key, row)
    if (!before) body.append(row.element)
    else {
      const focus = placeOfFocus(before.element)
      before.element.replaceWith(row.element)
      if (focus) row.element.querySelector(focus)?.focus({ preventScroll: true })
    }
    return row
  }

  function placeOfFocus(element) {
    const active = document.activeElement
    if (!element.contains(active)) return null
    return active.matches("input") ? "input" : active.matches("button") ? "button" : "a"
  }

  function place(row, at) {
    if (row.top !== tops[at]) row.element.style.setProperty("transform", `translateY(${tops[at]}px)`)
    row.element.setAttribute("aria-rowindex", String(at + 2)) // the first is that of the headings
    row.top = tops[at]
    row.at = at
  }

  /** The order in the document is that of the tab key and of screen readers. */
  function sort() {
    let before = null
    for (const { element } of [...drawn.values()].sort((one, other) => one.at - other.at)) {
      const isElsewhere = element.previousElementSibling !== before
      if (isElsewhere && !element.contains(document.activeElement)) {
        body.insertBefore(element, before ? before.nextSibling : body.firstChild)
      }
      before = element
    }
  }

  const focusedRow = () => [...drawn.values()].find(({ element }) => element.contains(document.activeElement))

  /** Once for each frame: scrolling tells more often. */
  function askPaint() {
    if (isAsked) return
    isAsked = true
    requestAnimationFrame(() => {
      isAsked = false
      paint()
    })
  }
  function resized() {
    measure()
    askPaint()
  }
  addEventListener("scroll", askPaint, { passive: true })
  addEventListener("resize", resized)

  return {
    paint,
    set(next) {
      entries = next
      measure()
      paint()
    },
    /** The entry whose row has the focus, or null. */
    get focused() {
      const row = focusedRow()
      return row ? entries[row.at] : null
    },
    /** Move the focus by so many rows, in or out of view. */
    step(way) {
      const row = focusedRow()
      const begin = firstBelow(60 - body.getBoundingClientRect().top)
      const at = Math.max(0, Math.min(entries.length - 1, row ? row.at + way : begin))
      const top = body.getBoundingClientRect().top + tops[at]
      if (top < TOP_BARS) scrollBy(0, top - TOP_BARS)
      if (top > innerHeight - BOTTOM) scrollBy(0, top - innerHeight + BOTTOM)
      paint()
      const next = [...drawn.values()].find((one) => one.at === at)
      next?.element.querySelector("a.title, button")?.focus({ preventScroll: true })
    },
    destroy() {
      removeEventListener("scroll", askPaint)
      removeEventListener("resize", resized)
    },
  }
}
