/** The chart that people look at first: each episode faint, the smoothed curve, evaluations, events; and its brush. */

import { get } from "./api.js"
import { makeBrush } from "./brush.js"
import { h, put } from "./dom.js"
import { number, plural } from "./format.js"
import { makePanel } from "./panel.js"
import { makeSource } from "./source.js"

const REWARD = "train.total_reward"
const EPISODES = "metrics.time/episodes"
const SIGNS = new Map([
  ["resumed", "resume"], ["forked", "resume"], ["stalled", "stall"], ["disk_full", "failed"], ["actor_failed", "failed"],
  ["best_changed", "best"], ["checkpoint_written", "checkpoint"],
])
const SIGN_NAMES = [
  ["best", "new best"], ["checkpoint", "checkpoint"], ["resume", "resumed"], ["stall", "stalled"], ["failed", "failure"],
]
const INTERRUPTIONS = new Set(["resume", "stall", "failed"])
const MOST_EVALUATIONS = 5000

/**
 * Make the chart. `options` are those of a panel; `zoom(from, to)` is called for another range, `moved()` when the end of
 * the run is another one, `interrupted(events)` with the events that belong on every chart, `failed(problem)` when the
 * server refuses.
 */
export function makeReward(viewed, options, { zoom, moved, interrupted, failed }) {
  const { id } = viewed.info
  const abort = new AbortController()
  const legend = h("div", { class: "legend" })
  const empty = "No episode has ended yet: the curve begins with the first one."
  const own = { title: "Reward", names: () => [REWARD], level: "h2", height: 320, empty, legend }
  const panel = makePanel({ ...options, ...own })
  panel.element.classList.add("main-chart")
  panel.chart.onZoom(zoom)
  const brush = makeBrush(panel.element, zoom)
  let evaluations = []
  let places = []
  let signs = new Set()

  const names = () => (viewed.has(REWARD) ? [REWARD] : [])
  const source = makeSource(id,
    () => ({ names: names(), x: viewed.x, smooth: viewed.smooth, from: viewed.from, to: viewed.to, points: 1200 }), draw, failed)
  const overview = makeSource(id,
    () => ({ names: names(), x: viewed.x, smooth: viewed.smooth || viewed.fitting, points: 300 }), moved, failed)

  function draw() {
    const found = source.of(REWARD)
    if (viewed.has(REWARD) && !found) return // it is on its way
    const curve = found?.n ? found : null
    const best = evaluations.findIndex((one) => one.is_best)
    const layers = curve ? curveLayers(curve) : []
    if (evaluations.length && places.length === evaluations.length) layers.push(evaluationLayer(best))
    panel.setData(layers)
    showLegend(curve, best)
    moved()
  }

  function curveLayers(curve) {
    const isSmooth = curve.smooth !== null && viewed.smooth !== ""
    const raw = {
      label: curve.isWhole ? "each episode" : "mean of each bucket", short: "episode", x: curve.x, y: curve.mean,
      ...(curve.isWhole ? {} : { low: curve.min, high: curve.max }),
      color: 0, width: isSmooth ? 1 : 1.5, opacity: isSmooth ? 0.46 : 1, alpha: 0.34, dash: [],
    }
    if (!isSmooth) return [raw]
    const line = { label: viewed.smoothName, short: "smoothed", x: curve.x, y: curve.smooth }
    return [raw, { ...line, color: 0, width: 2.25, dash: [] }]
  }

  function evaluationLayer(best) {
    const of = (key) => evaluations.map((one) => one[key])
    const note = (i) => `${plural(evaluations[i].n, "episode")}${i === best ? " · best" : ""}`
    return {
      label: "evaluation", kind: "points", x: places, y: of("mean"), low: of("low"), high: of("high"),
      color: "second", best, note,
    }
  }

  function showLegend(curve, best) {
    const entry = (mark, ...text) => h("span", {}, h("span", { class: mark, "aria-hidden": "true" }), text)
    const spread = curve?.isWhole ? "each episode" : `least to most of ${plural(curve?.n ?? 0, "episode")}`
    put(legend,
      curve ? entry("swatch faint", spread) : null,
      curve && viewed.smooth ? entry("swatch accent", viewed.smoothName) : null,
      evaluations.length ? entry("swatch second", "evaluation with 95 % interval") : null,
      best < 0 ? null
        : entry("ring", "best ", h("b", {}, number(evaluations[best].mean)), ` at step ${number(evaluations[best].step)}`),
      SIGN_NAMES.filter(([sign]) => signs.has(sign)).map(([sign, text]) => entry(`mark ${sign}`, text)),
      curve || evaluations.length ? null : h("span", {}, "No episode has ended."))
  }

  const ask = (path, params = {}) => get(`api/runs/${id}/${path}`, params, { signal: abort.signal })

  async function askEvaluations() {
    const { evaluations: found } = await ask("evaluations")
    evaluations = found
    if (viewed.x === "steps") places = found.map((one) => one.step)
    else if (viewed.x === "time") places = found.map((one) => one.time - viewed.info.started_at)
    else if (found.length) {
      const { series: [curve] } = await ask("series", { name: "eval.mean", x: viewed.x, points: MOST_EVALUATIONS })
      places = curve.x
    }
    draw()
  }

  async function askEvents() {
    const { rows: events } = await ask("events", { page: 0 })
    const placeOf = await eventPlaces()
    const shown = []
    for (const event of events) {
      const isEnd = event.kind === "attempt_ended" && event.level === "error"
      const sign = SIGNS.get(event.kind) ?? (isEnd ? "failed" : null)
      if (sign) shown.push({ x: placeOf(event), sign, sentence: event.sentence })
    }
    shown.sort((one, other) => one.x - other.x)
    signs = new Set(shown.map(({ sign }) => sign))
    panel.chart.setEvents(shown)
    interrupted(shown.filter(({ sign }) => INTERRUPTIONS.has(sign)))
    draw()
  }

  /** Where an event lies on the axis; its episode is between those of the records around it. */
  async function eventPlaces() {
    const { info } = viewed
    if (viewed.x === "steps") return (event) => event.total_steps
    if (viewed.x === "time") return (event) => event.time - info.started_at
    const points = [[0, 0]]
    if (viewed.has(EPISODES)) {
      const { series: [known] } = await ask("series", { name: EPISODES, x: "steps", points: 2000 })
      known.x.forEach((at, i) => { if (known.mean[i] !== null) points.push([at, known.mean[i]]) })
    }
    points.push([Math.max(info.total_steps, points.at(-1)[0] + 1), info.total_episodes])
    return ({ total_steps: steps }) => {
      const next = Math.max(1, points.findIndex(([at]) => at >= steps))
      const [[before, low], [after, high]] = [points[next - 1], points[next]]
      return before === after ? low : low + (high - low) * Math.min(1, Math.max(0, (steps - before) / (after - before)))
    }
  }

  return {
    element: panel.element,
    /** Ask for what is wanted now; `isNew(of)` says whether there may be more rows of a file. */
    ask(isNew, isStatusNew) {
      if (isNew("train")) for (const one of [source, overview]) one.ask()
      return [
        ...(isNew("eval") ? [askEvaluations()] : []),
        ...(isNew("eval") || isNew("metrics") || isStatusNew ? [askEvents()] : []),
      ]
    },
    /** The whole of the x axis; while a run is being read, its end, which is known first. */
    domain() {
      const whole = overview.of(REWARD)
      const begin = viewed.info.share_read < 1 ? (whole?.x[0] ?? 0) : 0
      const ends = [whole?.x.at(-1), source.of(REWARD)?.x.at(-1), places.at(-1), viewed.end]
      return [begin, Math.max(begin + 1, ...ends.filter((end) => Number.isFinite(end)))]
    },
    apply() {
      panel.setX(viewed.x)
      panel.chart.setScale(viewed.scale)
    },
    showRange(low, high) {
      panel.chart.setRange(viewed.from ?? low, viewed.to ?? high)
      const whole = overview.of(REWARD)
      brush.setData(whole?.x ?? [], whole?.smooth ?? whole?.mean ?? [], low, high, viewed.x)
      brush.setRange(viewed.from, viewed.to)
    },
    destroy() {
      abort.abort()
      for (const one of [source, overview, brush, panel]) one.destroy()
    },
  }
}
