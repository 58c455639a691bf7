/** Small charts of everything else that a run measures, over the same x axis; those that few people want are folded. */

import { h, renew, say } from "./dom.js"
import { makePanel } from "./panel.js"
import { panelsOf, withoutForeignRows } from "./panels.js"
import { makeSource } from "./source.js"

const REFERENCE = "metrics.time/fps" // every record has it
const POINTS = 500
const HEIGHT = 150
const LARGE = 320
const MOST_AT_ONCE = 60
const MANY = 12 // beyond which a field to filter them helps

/** Make the charts. `options(title)` are those of a panel; `zoom`, `moved` and `failed` as for the reward. */
export function makeMultiples(viewed, options, { zoom, moved, failed }) {
  const { id } = viewed.info
  const panels = new Map()
  const grid = h("div", { class: "multiples" })
  const moreGrid = h("div", { class: "multiples" })
  const moreName = h("summary", {})
  const filter = h("input", {
    class: "field search", type: "search", placeholder: "Filter metrics", "aria-label": "Filter metrics", oninput: opened,
  })
  const count = h("span", { class: "muted", role: "status" })
  const tools = h("div", { class: "toolbar more-bar" }, filter, count)
  const more = h("details", { class: "more", hidden: true, ontoggle: opened }, moreName, tools, moreGrid)
  let listed = { first: [], more: [] }
  let events = []

  const namesOf = (list, of) =>
    list.flatMap(({ curves }) => curves.filter((curve) => curve.of === of).map(({ name }) => name))
  const withReference = (names) =>
    (names.length && viewed.has(REFERENCE) ? [...new Set([...names, REFERENCE])] : names)
  const plan = (names, smooth) => ({ names, x: viewed.x, smooth, from: viewed.from, to: viewed.to, points: POINTS })
  const train = makeSource(id, () => plan(namesOf(listed.first, "train"), viewed.smooth), () => draw(listed.first), failed)
  const metrics = makeSource(id,
    () => plan(withReference(namesOf(listed.first, "metrics")), viewed.smoothOfRecords), () => draw(listed.first), failed)
  const folded = makeSource(id, () => (more.open
    ? plan(withReference([...namesOf(found(), "metrics"), ...namesOf(found(), "train")]), "") : null),
  () => draw(found()), failed)

  /** The folded panels that the filter leaves, as far as they are shown. */
  function found() {
    const words = filter.value.toLowerCase().split(/\s+/)
    const isWanted = ({ title, key }) => words.every((word) => `${title} ${key}`.toLowerCase().includes(word))
    const all = listed.more.filter(isWanted)
    say(count, all.length > MOST_AT_ONCE ? `The first ${MOST_AT_ONCE} of ${all.length}: filter for others` : "")
    return all.slice(0, MOST_AT_ONCE)
  }

  function opened() {
    arrange()
    folded.ask()
  }

  /** Panels as the run has curves: made once, in order, and gone when their curves are. */
  function arrange() {
    listed = panelsOf(viewed.info.series)
    const wanted = new Map(listed.first.map((plan) => [plan.key, [plan, grid]]))
    if (more.open) for (const plan of found()) wanted.set(plan.key, [plan, moreGrid])
    for (const [key, panel] of panels) {
      if (wanted.has(key)) continue
      panel.destroy()
      panels.delete(key)
    }
    const places = new Map([[grid, 0], [moreGrid, 0]])
    for (const [key, [plan, home]] of wanted) {
      if (!panels.has(key)) panels.set(key, makeOne(plan))
      const at = places.get(home)
      const { element } = panels.get(key)
      if (home.children[at] !== element) home.insertBefore(element, home.children[at] ?? null)
      places.set(home, at + 1)
    }
    tools.hidden = listed.more.length <= MANY
    more.hidden = listed.more.length === 0
    renew(moreName, listed.more.length, () => ["More metrics ", h("span", { class: "muted" }, listed.more.length)])
  }

  function makeOne({ title, curves }) {
    const label = `${title}: larger`
    const wide = h("button", { class: "quiet", title: "Larger", "aria-label": label, "aria-pressed": "false" }, "⤢")
    const names = () => curves.map(({ name }) => name)
    const panel = makePanel({ ...options(title), title, names, height: HEIGHT, isSmall: true, extra: wide })
    wide.addEventListener("click", () => {
      const isWide = panel.element.classList.toggle("wide")
      wide.setAttribute("aria-pressed", String(isWide))
      panel.chart.setHeight(isWide ? LARGE : HEIGHT)
    })
    panel.chart.onZoom(zoom)
    panel.chart.setScale(viewed.scale)
    panel.chart.setEvents(events)
    panel.setX(viewed.x)
    return panel
  }

  function draw(list) {
    for (const { key, curves } of list) panels.get(key)?.setData(curves.flatMap(layersOf))
    moved()
  }

  function layersOf({ name, label, of }, color) {
    const source = [train, metrics, folded].find((one) => one.of(name))
    if (!source) return []
    const curve = of === "metrics" ? withoutForeignRows(source.of(name), source.of(REFERENCE)) : source.of(name)
    const band = curve.isWhole ? {} : { low: curve.min, high: curve.max }
    const line = { label, x: curve.x, y: curve.smooth ?? curve.mean, color, width: 1.6, dash: [] }
    if (curve.smooth === null) return [{ ...line, ...band }]
    const faint = { width: 1, opacity: 0.35, alpha: 0.26, isQuiet: true }
    return [{ ...line, ...band, ...faint, label: `${label}, raw`, y: curve.mean }, line]
  }

  return {
    elements: [grid, more],
    toggleMore() { more.open = !more.open },
    /** Ask for what is wanted now; `isNew(of)` says whether there may be more rows of a file. */
    ask(isNew) {
      arrange()
      if (isNew("train")) train.ask()
      if (isNew("metrics")) metrics.ask()
      if (isNew("train") || isNew("metrics")) folded.ask()
    },
    apply() {
      arrange()
      for (const panel of panels.values()) {
        panel.setX(viewed.x)
        panel.chart.setScale(viewed.scale)
      }
    },
    setEvents(found) {
      events = found
      for (const { chart } of panels.values()) chart.setEvents(events)
    },
    showRange(low, high) {
      for (const { chart } of panels.values()) chart.setRange(viewed.from ?? low, viewed.to ?? high)
    },
    destroy() {
      for (const one of [train, metrics, folded, ...panels.values()]) one.destroy()
    },
  }
}
