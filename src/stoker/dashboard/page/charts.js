/** The charts of a run: reward on top, small multiples below it, where the time goes; all over one x axis. */

import { get } from "./api.js"
import { makeBrush } from "./brush.js"
import { choice, slider } from "./choices.js"
import { copyText, h, put } from "./dom.js"
import { number, plural } from "./format.js"
import { makePanel } from "./panel.js"
import { panelsOf, withoutForeignRows } from "./panels.js"
import { setQuery } from "./router.js"
import { makeShares } from "./shares.js"
import { makeSource } from "./source.js"

const REWARD = "train.total_reward"
const REFERENCE = "metrics.time/fps"
const SMOOTHINGS = [["", "off"], ...[5, 10, 20, 50, 100, 200, 500, 1000].map((n) => [`mean:${n}`, `${n} episodes`])]
/** From so many episodes on, the smoothing that shows a curve's course without hiding its turns. */
const FITTING = [[100_000, "mean:1000"], [20_000, "mean:200"], [5000, "mean:100"], [1000, "mean:50"], [400, "mean:20"], [100, "mean:10"], [0, "mean:5"]]
const SMALL_POINTS = 500
const SIGN_NAMES = [["best", "new best"], ["checkpoint", "checkpoint"], ["resume", "resumed"], ["stall", "stalled"], ["failed", "failure"]]
const SIGNS = { resumed: "resume", stalled: "stall", disk_full: "failed", actor_failed: "failed", best_changed: "best", checkpoint_written: "checkpoint", forked: "resume" }

/** Make the charts within an element. */
export function makeCharts(element, first, file) {
  let info = first
  const id = info.id
  const sync = `run ${id}`
  const state = { x: "steps", smooth: "", isFitted: true, scale: "linear", from: null, to: null }
  const abort = new AbortController()
  const panels = new Map()
  let evaluations = []
  let evaluationPlaces = []
  let signs = new Set()
  let shares = null
  let isMoreOpen = false
  let isOver = false

  const problem = h("div", { class: "notice error", role: "alert", hidden: true })
  const axis = choice("X axis", [["steps", "Steps"], ["episodes", "Episodes"], ["time", "Time"]], (x) => change({ x, from: null, to: null }))
  const scale = choice("Y axis", [["linear", "Linear"], ["log", "Log"]], (value) => change({ scale: value }))
  const smoothing = slider("Smoothing", SMOOTHINGS, (smooth) => change({ smooth, isFitted: false }))
  const whole = h("button", { onclick: () => zoom(null, null), hidden: true }, "Show all")
  const copy = h("button", { class: "quiet", onclick: copyLink, title: "Copy a link to this view" }, "Copy link")
  const rewardLegend = h("div", { class: "legend" })
  const subtitle = [first.name, first.version, first.run_id].join(" / ")
  const reward = makePanel({ id, subtitle, title: "Reward", file: file("reward"), names: () => [REWARD], level: "h2", empty: "No episode has ended yet: the curve begins with the first one.", sync, height: 320, legend: rewardLegend })
  reward.element.classList.add("main-chart")
  const brush = makeBrush(reward.element, (from, to) => zoom(from, to))
  const grid = h("div", { class: "multiples" })
  const moreGrid = h("div", { class: "multiples" })
  const moreName = h("summary", {})
  const more = h("details", { class: "more", hidden: true, ontoggle: () => { isMoreOpen = more.open; arrangePanels(); moreSource.ask() } }, moreName, moreGrid)
  const sharesView = makeShares({ sync, onZoom: zoom, file, subtitle })
  put(element, h("div", { class: "toolbar run-bar charts-bar" }, axis.element, scale.element, smoothing.element, h("span", { class: "grow" }), whole, copy),
    problem, reward.element, grid, more, sharesView.element)
  reward.chart.onZoom(zoom)
  sharesView.setExplanation(info.explanation)

  const failed = (refusal) => {
    if (refusal.status === 0) return // the frame says so
    problem.hidden = false
    put(problem, h("p", {}, refusal.message))
  }
  const fitting = () => FITTING.find(([least]) => info.total_episodes >= least)[1]
  const plan = (names, points, smooth) => () => ({ names: names(), x: state.x, smooth: smooth(), from: state.from, to: state.to, points })
  const known = (name) => info.series.some((one) => one.name === name)
  const namesOf = (list, of) => list.flatMap((panel) => panel.curves.filter((curve) => curve.of === of).map((curve) => curve.name))
  const withReference = (names) => (names.length && known(REFERENCE) && !names.includes(REFERENCE) ? [...names, REFERENCE] : names)
  /** Records are fewer than episodes: the same smoothing reaches over the same part of the run. */
  const metricSmoothing = () => {
    const [kind, width] = state.smooth.split(":")
    const records = info.series.find((one) => one.of === "metrics")?.n ?? 0
    const scaled = Math.round((Number(width) * records) / (info.total_episodes || 1))
    return kind === "mean" ? (scaled > 1 ? `mean:${scaled}` : "") : state.smooth
  }
  const listed = () => panelsOf(info.series)

  const rewardSource = makeSource(id, plan(() => (known(REWARD) ? [REWARD] : []), 1200, () => state.smooth), drawReward, failed)
  const overview = makeSource(id, () => (known(REWARD) ? { names: [REWARD], x: state.x, smooth: state.smooth || fitting(), points: 300 } : null), drawBrush, failed)
  const trainSource = makeSource(id, plan(() => namesOf(listed().first, "train"), SMALL_POINTS, () => state.smooth), () => drawPanels(listed().first), failed)
  const metricsSource = makeSource(id, plan(() => withReference(namesOf(listed().first, "metrics")), SMALL_POINTS, metricSmoothing), () => drawPanels(listed().first), failed)
  const moreSource = makeSource(id, () => (isMoreOpen ? plan(() => withReference([...namesOf(listed().more, "metrics"), ...namesOf(listed().more, "train")]), SMALL_POINTS, () => "")() : null), () => drawPanels(listed().more), failed)
  const sources = [rewardSource, overview, trainSource, metricsSource, moreSource]

  /** The whole of the x axis; while a run is being read, its end, which is known first. */
  function domain() {
    const begin = info.share_read < 1 ? (overview.of(REWARD)?.x[0] ?? 0) : 0
    const ends = [overview.of(REWARD)?.x.at(-1), rewardSource.of(REWARD)?.x.at(-1), evaluationPlaces.at(-1)]
    if (state.x === "steps") ends.push(info.total_steps)
    if (state.x === "episodes") ends.push(info.total_episodes)
    if (state.x === "time" && info.last_updated && info.started_at) ends.push(info.last_updated - info.started_at)
    return [begin, Math.max(begin + 1, ...ends.filter((end) => Number.isFinite(end)))]
  }

  function showRange() {
    const [low, high] = domain()
    for (const { chart } of [reward, ...panels.values()]) chart.setRange(state.from ?? low, state.to ?? high)
    sharesView.setRange(state.from ?? low, state.to ?? high)
  }

  function drawReward() {
    if (isOver) return
    problem.hidden = true
    const found = rewardSource.of(REWARD)
    if (known(REWARD) && !found) return // it is on its way
    const curve = found?.n ? found : null
    const layers = []
    if (curve) {
      const hasSmooth = curve.smooth !== null && state.smooth !== ""
      layers.push({
        label: curve.isWhole ? "each episode" : "mean of each bucket", short: "episode", x: curve.x, y: curve.mean, low: curve.isWhole ? undefined : curve.min, high: curve.isWhole ? undefined : curve.max,
        color: 0, width: hasSmooth ? 1 : 1.5, opacity: hasSmooth ? 0.46 : 1, alpha: 0.34, dash: [],
      })
      if (hasSmooth) layers.push({ label: smoothingName(), short: "smoothed", x: curve.x, y: curve.smooth, color: 0, width: 2.25, dash: [] })
    }
    const best = evaluations.findIndex((one) => one.is_best)
    if (evaluations.length && evaluationPlaces.length === evaluations.length) {
      layers.push({
        label: "evaluation", kind: "points", x: evaluationPlaces, y: evaluations.map((one) => one.mean), low: evaluations.map((one) => one.low),
        high: evaluations.map((one) => one.high), color: "second", best, note: (i) => `${plural(evaluations[i].n, "episode")}${i === best ? " · best" : ""}`,
      })
    }
    reward.setData(layers)
    showRewardLegend(curve, best)
    drawBrush()
  }

  const smoothingName = () => (state.smooth.startsWith("ema") ? `exponential mean ${state.smooth.slice(4)}` : `mean of ${state.smooth.slice(5)}`)

  function showRewardLegend(curve, best) {
    const swatch = (name) => h("span", { class: `swatch ${name}` })
    put(rewardLegend,
      curve ? h("span", {}, swatch("faint"), curve.isWhole ? "each episode" : `least to most of ${plural(curve.n, "episode")}`) : null,
      curve && state.smooth ? h("span", {}, swatch("accent"), smoothingName()) : null,
      evaluations.length ? h("span", {}, swatch("second"), "evaluation with 95 % interval") : null,
      best >= 0 ? h("span", {}, h("span", { class: "ring", "aria-hidden": "true" }), "best ", h("b", {}, number(evaluations[best].mean)), ` at step ${number(evaluations[best].step)}`) : null,
      SIGN_NAMES.filter(([sign]) => signs.has(sign)).map(([sign, text]) => h("span", {}, h("span", { class: `mark ${sign}`, "aria-hidden": "true" }), text)),
      curve || evaluations.length ? null : h("span", {}, "No episode has ended."))
  }

  function drawBrush() {
    const curve = overview.of(REWARD)
    const [low, high] = domain()
    brush.setData(curve?.x ?? [], curve?.smooth ?? curve?.mean ?? [], low, high, state.x)
    brush.setRange(state.from, state.to)
    showRange()
  }

  /** Panels as the run has curves: made once, in order, and gone when their curves are. */
  function arrangePanels() {
    const { first: above, more: below } = listed()
    const wanted = new Map([...above.map((panel) => [panel.key, [panel, grid]]), ...(isMoreOpen ? below.map((panel) => [panel.key, [panel, moreGrid]]) : [])])
    for (const [key, panel] of panels) {
      if (wanted.has(key)) continue
      panel.destroy()
      panels.delete(key)
    }
    for (const [key, [{ title, curves }, home]] of wanted) {
      if (panels.has(key)) continue
      const wide = h("button", { class: "quiet", title: "Larger", "aria-label": `${title}: larger`, "aria-pressed": "false", onclick: () => {
        const isWide = panel.element.classList.toggle("wide")
        wide.setAttribute("aria-pressed", String(isWide))
        panel.chart.setHeight(isWide ? 320 : 150)
      } }, "⤢")
      const panel = makePanel({ id, subtitle, title, file: file(title.toLowerCase()), names: () => curves.map((curve) => curve.name), sync, height: 150, isSmall: true, extra: wide })
      panel.chart.onZoom(zoom)
      panel.chart.setScale(state.scale)
      panel.setX(state.x)
      home.append(panel.element)
      panels.set(key, panel)
    }
    more.hidden = below.length === 0
    put(moreName, "More metrics ", h("span", { class: "muted" }, below.length))
  }

  function drawPanels(list) {
    if (isOver) return
    for (const { key, curves } of list) {
      const panel = panels.get(key)
      if (!panel) continue
      const layers = []
      curves.forEach(({ name, label, of }, at) => {
        const source = [trainSource, metricsSource, moreSource].find((one) => one.of(name))
        if (!source) return
        const curve = of === "metrics" ? withoutForeignRows(source.of(name), source.of(REFERENCE)) : source.of(name)
        const hasSmooth = curve.smooth !== null
        const band = curve.isWhole ? {} : { low: curve.min, high: curve.max }
        if (hasSmooth) layers.push({ label: `${label}, raw`, x: curve.x, y: curve.mean, ...band, color: at, width: 1, opacity: 0.35, alpha: 0.26, dash: [], isQuiet: true })
        layers.push({ label, x: curve.x, y: hasSmooth ? curve.smooth : curve.mean, ...(hasSmooth ? {} : band), color: at, width: 1.6, dash: [] })
      })
      panel.setData(layers)
    }
    showRange()
  }

  async function askEvaluations() {
    const { evaluations: found } = await get(`api/runs/${id}/evaluations`, {}, { signal: abort.signal })
    evaluations = found
    if (state.x === "steps") evaluationPlaces = found.map((one) => one.step)
    else if (state.x === "time") evaluationPlaces = found.map((one) => one.time - info.started_at)
    else if (found.length) {
      const { series: [places] } = await get(`api/runs/${id}/series`, { name: "eval.mean", x: state.x, points: 5000 }, { signal: abort.signal })
      evaluationPlaces = places.x
    }
    drawReward()
  }

  async function askEvents() {
    const { events } = await get(`api/runs/${id}/events`, { page: 0 }, { signal: abort.signal })
    const place = await placeOf()
    const shown = events.filter((event) => SIGNS[event.kind] || (event.kind === "attempt_ended" && event.level === "error"))
      .map((event) => ({ x: place(event), sign: SIGNS[event.kind] ?? "failed", sentence: event.sentence })).sort((a, b) => a.x - b.x)
    reward.chart.setEvents(shown)
    signs = new Set(shown.map(({ sign }) => sign))
    drawReward()
    const lines = shown.filter(({ sign }) => sign === "resume" || sign === "stall" || sign === "failed")
    for (const { chart } of panels.values()) chart.setEvents(lines)
  }

  /** Where an event lies on the axis; episodes are between those of the records around it. */
  async function placeOf() {
    if (state.x === "steps") return (event) => event.total_steps
    if (state.x === "time") return (event) => event.time - info.started_at
    const name = "metrics.time/episodes"
    const points = [[0, 0]]
    if (known(name)) {
      const { series: [found] } = await get(`api/runs/${id}/series`, { name, x: "steps", points: 2000 }, { signal: abort.signal })
      found.x.forEach((x, i) => { if (found.mean[i] !== null) points.push([x, found.mean[i]]) })
    }
    points.push([Math.max(info.total_steps, points.at(-1)[0] + 1), info.total_episodes])
    return ({ total_steps: steps }) => {
      const at = Math.max(1, points.findIndex(([x]) => x >= steps))
      const [[x, y], [nextX, nextY]] = [points[at - 1], points[at]]
      return nextX === x ? y : y + ((nextY - y) * Math.min(1, Math.max(0, (steps - x) / (nextX - x))))
    }
  }

  async function askShares() {
    shares = await get(`api/runs/${id}/shares`, { points: 300, x: state.x }, { signal: abort.signal })
    sharesView.update(shares, state.x, state.from, state.to)
    showRange()
  }

  const rowsOf = (of) => info.series.find((one) => one.of === of)?.n ?? 0

  /** Ask for what is wanted now; with `before`, the run as it was, only for what has become more since then. */
  function ask(before = null) {
    const isNew = (of) => before === null || before.rows[of] !== rowsOf(of) || before.isPart
    arrangePanels()
    for (const source of sources) if ((source !== metricsSource && isNew("train")) || (source !== rewardSource && source !== overview && isNew("metrics"))) source.ask()
    const jobs = [isNew("eval") ? askEvaluations : null, isNew("eval") || isNew("metrics") || before.status !== info.status ? askEvents : null, isNew("metrics") ? askShares : null]
    for (const job of jobs.filter(Boolean)) {
      job().catch((refusal) => {
        if (refusal.name === "AbortError" || isOver) return
        if (refusal.status === undefined) throw refusal
        failed(refusal)
      })
    }
  }

  /** Take up what the address says. */
  function take(query) {
    const x = ["steps", "episodes", "time"].includes(query.x) ? query.x : "steps"
    const end = (text) => (text !== undefined && text !== "" && Number.isFinite(Number(text)) ? Number(text) : null)
    Object.assign(state, { x, scale: query.scale === "log" ? "log" : "linear", from: end(query.from), to: end(query.to) })
    const isGiven = query.smooth === "off" || /^(mean:\d{1,6}|ema:0?\.\d+)$/.test(query.smooth ?? "")
    state.isFitted = !isGiven
    state.smooth = !isGiven ? fitting() : query.smooth === "off" ? "" : query.smooth
    if (state.from !== null && state.to !== null && state.from >= state.to) state.from = state.to = null
    axis.value = state.x
    scale.value = state.scale
    smoothing.value = state.smooth
    whole.hidden = state.from === null && state.to === null
    arrangePanels()
    for (const panel of [reward, ...panels.values()]) {
      panel.setX(state.x)
      panel.chart.setScale(state.scale)
    }
    showRange()
    brush.setRange(state.from, state.to)
    ask()
  }

  function address() {
    return { x: state.x === "steps" ? null : state.x, smooth: state.isFitted ? null : state.smooth || "off", scale: state.scale === "log" ? "log" : null, from: state.from, to: state.to }
  }

  function change(changes, options = {}) {
    Object.assign(state, changes)
    setQuery(address(), options)
    take({ ...Object.fromEntries(Object.entries(address()).filter(([, value]) => value !== null).map(([key, value]) => [key, String(value)])) })
  }

  /** Another range: at full resolution, and undone by the Back button. */
  function zoom(from, to) {
    const [low, high] = domain()
    const digits = high > 1000 ? 0 : 2
    const round = (value) => Number(value.toFixed(digits))
    if (from === null || to === null || (from <= low && to >= high)) change({ from: null, to: null }, { push: state.from !== null || state.to !== null })
    else if (to - from > Math.max(1e-9 * (high - low), 0.01)) change({ from: round(Math.max(low, from)), to: round(Math.min(high, to)) }, { push: true })
  }

  async function copyLink() {
    await copyText(location.href)
    put(copy, "Copied")
    setTimeout(() => put(copy, "Copy link"), 1500)
  }

  const step = (way) => {
    const at = SMOOTHINGS.findIndex(([value]) => value === state.smooth)
    change({ isFitted: false, smooth: SMOOTHINGS[Math.max(0, Math.min(SMOOTHINGS.length - 1, at + way))][0] })
  }

  return {
    keys: [
      ["x", "X axis: steps, episodes, time", () => change({ x: { steps: "episodes", episodes: "time", time: "steps" }[state.x], from: null, to: null })],
      ["l", "Linear or logarithmic", () => change({ scale: state.scale === "log" ? "linear" : "log" })],
      ["[", "Less smoothing", () => step(-1)],
      ["]", "More smoothing", () => step(1)],
      ["r", "Show all", () => zoom(null, null)],
      ["b", "More metrics", () => { more.open = !more.open }],
    ],
    take,
    update(next) {
      const before = { rows: { train: rowsOf("train"), eval: rowsOf("eval"), metrics: rowsOf("metrics") }, status: info.status, isPart: info.share_read < 1 }
      info = next
      sharesView.setExplanation(info.explanation)
      if (state.isFitted && state.smooth !== fitting()) state.smooth = smoothing.value = fitting()
      showRange()
      ask(before)
    },
    destroy() {
      isOver = true
      abort.abort()
      for (const source of sources) source.destroy()
      for (const panel of [reward, ...panels.values()]) panel.destroy()
      brush.destroy()
      sharesView.destroy()
    },
  }
}
