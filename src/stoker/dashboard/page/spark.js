/** Small curves of the list: asked for in batches, for what is visible, and kept until the run has news. */

import { get } from "./api.js"
import { put, svg } from "./dom.js"

const BATCH = 100
const WIDTH = 120
const HEIGHT = 26

/** Holds curves by run; `ask(runs)` gets those that are missing or old and calls back once some have arrived. */
export function makeSparks(arrived) {
  const held = new Map()
  const asked = new Map()
  let timer = null
  const wanted = new Map()

  async function fetchAll() {
    timer = null
    const batch = [...wanted].slice(0, BATCH)
    if (!batch.length) return
    for (const [id, stamp] of batch) {
      wanted.delete(id)
      asked.set(id, stamp)
    }
    try {
      const { sparks } = await get("api/sparks", { ids: batch.map(([id]) => id).join(",") })
      for (const [id, values] of Object.entries(sparks)) held.set(id, values)
      arrived()
    } catch (problem) {
      // The list itself says what is wrong with the connection; the curves are asked for with the next news.
      for (const [id] of batch) asked.delete(id)
      if (problem.status === undefined) throw problem
    }
    if (wanted.size) timer = setTimeout(fetchAll, 0)
  }

  return {
    ask(runs) {
      wanted.clear() // those that were scrolled past are not waited for
      for (const run of runs) {
        if (asked.get(run.id) !== run.last_updated && run.status !== "broken") wanted.set(run.id, run.last_updated)
      }
      if (wanted.size && timer === null) timer = setTimeout(fetchAll, 80)
    },
    of: (id) => held.get(id) ?? null,
    destroy() { clearTimeout(timer) },
  }
}

/** A curve without axes; gaps are left out, and its end has a dot. */
export function drawSpark(element, values) {
  const known = (values ?? []).map((y, i) => [i, y]).filter(([, y]) => y !== null)
  if (known.length < 2) return put(element)
  const low = Math.min(...known.map(([, y]) => y))
  const high = Math.max(...known.map(([, y]) => y))
  const x = (i) => 2 + (i / (values.length - 1)) * (WIDTH - 6)
  const y = (v) => (high === low ? HEIGHT / 2 : HEIGHT - 3 - ((v - low) / (high - low)) * (HEIGHT - 6))
  const points = known.map(([i, v]) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`)
  const [end, last] = known[known.length - 1]
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }
  const pen = { fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-linejoin": "round" }
  return put(element, svg("svg", box,
    svg("polyline", { points: points.join(" "), ...pen, "vector-effect": "non-scaling-stroke" }),
    svg("circle", { cx: x(end).toFixed(1), cy: y(last).toFixed(1), r: 2, fill: "currentColor" })))
}
