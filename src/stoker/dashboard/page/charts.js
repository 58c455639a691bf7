/** The charts of a run: reward on top, small multiples below it, where the time goes; all over one x axis. */

import { get } from "./api.js"
import { choice, slider } from "./choices.js"
import { copyText, h, put } from "./dom.js"
import { makeMultiples } from "./multiples.js"
import { makeReward } from "./reward.js"
import { setQuery } from "./router.js"
import { makeShares } from "./shares.js"
import { Viewed } from "./viewed.js"

const SMOOTHINGS = [["", "off"], ...[5, 10, 20, 50, 100, 200, 500, 1000].map((n) => [`mean:${n}`, `${n} episodes`])]
const NEXT_AXIS = { steps: "episodes", episodes: "time", time: "steps" }

/** Make the charts within an element; `file(name)` gives the stem of a file's name. */
export function makeCharts(element, info, file) {
  const viewed = new Viewed(info)
  const { id } = info
  const abort = new AbortController()
  let isOver = false

  const problem = h("div", { class: "notice error", role: "alert", hidden: true })
  const axis = choice("X axis", [["steps", "Steps"], ["episodes", "Episodes"], ["time", "Time"]], showAxis)
  const scale = choice("Y axis", [["linear", "Linear"], ["log", "Log"]], (next) => change({ scale: next }))
  const smoothing = slider("Smoothing", SMOOTHINGS, (smooth) => change({ smooth, isFitted: false }))
  const whole = h("button", { onclick: () => zoom(null, null), hidden: true }, "Show all")
  const copy = h("button", { class: "quiet", onclick: copyLink, title: "Copy a link to this view" }, "Copy link")
  const bar = h("div", { class: "toolbar run-bar charts-bar" },
    axis.element, scale.element, smoothing.element, h("span", { class: "grow" }), whole, copy)

  const subtitle = [info.name, info.version, info.run_id].join(" / ")
  const options = (name) => ({ id, sync: `run ${id}`, subtitle, file: file(name.toLowerCase()) })
  const calls = { zoom, moved: showRange, failed, interrupted: (events) => multiples.setEvents(events) }
  const multiples = makeMultiples(viewed, options, calls)
  const reward = makeReward(viewed, options("reward"), calls)
  const shares = makeShares(options, zoom)
  shares.setExplanation(info.explanation)
  put(element, bar, problem, reward.element, multiples.elements, shares.element)

  function failed(refusal) {
    if (refusal.status === 0) return // the frame says so
    problem.hidden = false
    put(problem, h("p", {}, refusal.message))
  }

  function showRange() {
    const [low, high] = reward.domain()
    for (const part of [reward, multiples]) part.showRange(low, high)
    shares.setRange(viewed.from ?? low, viewed.to ?? high)
  }

  async function askShares() {
    const answer = await get(`api/runs/${id}/shares`, { points: 300, x: viewed.x }, { signal: abort.signal })
    shares.update(answer, viewed.x, viewed.from, viewed.to)
    showRange()
  }

  /** Ask for what is wanted now; with `before`, the run as it was, only for what has become more since then. */
  function ask(before = null) {
    const isNew = (of) => before === null || before.share_read < 1 || new Viewed(before).rows(of) !== viewed.rows(of)
    problem.hidden = true
    multiples.ask(isNew)
    const jobs = reward.ask(isNew, before?.status !== viewed.info.status)
    if (isNew("metrics")) jobs.push(askShares())
    for (const job of jobs) {
      job.catch((refusal) => {
        if (refusal.name === "AbortError" || isOver) return
        if (refusal.status === undefined) throw refusal
        failed(refusal)
      })
    }
  }

  /** Take up what the address says. */
  function take(query) {
    viewed.take(query)
    axis.value = viewed.x
    scale.value = viewed.scale
    smoothing.value = viewed.smooth
    whole.hidden = viewed.isWhole
    for (const part of [reward, multiples]) part.apply()
    showRange()
    ask()
  }

  function change(changes, { push = false } = {}) {
    Object.assign(viewed, changes)
    const query = viewed.query
    setQuery(query, { push })
    const told = Object.entries(query).filter(([, value]) => value !== null)
    take(Object.fromEntries(told.map(([key, value]) => [key, String(value)])))
  }

  /** Another range: at full resolution, and undone by the Back button. */
  function zoom(from, to) {
    const [low, high] = reward.domain()
    const round = (value) => Number(value.toFixed(high > 1000 ? 0 : 2))
    if (from === null || to === null || (from <= low && to >= high)) {
      change({ from: null, to: null }, { push: !viewed.isWhole })
    } else if (to - from > Math.max(1e-9 * (high - low), 0.01)) {
      change({ from: round(Math.max(low, from)), to: round(Math.min(high, to)) }, { push: true })
    }
  }

  function showAxis(x) {
    change({ x, from: null, to: null })
  }

  async function copyLink() {
    await copyText(location.href)
    put(copy, "Copied")
    setTimeout(() => put(copy, "Copy link"), 1500)
  }

  function step(way) {
    const at = SMOOTHINGS.findIndex(([smooth]) => smooth === viewed.smooth) + way
    change({ isFitted: false, smooth: SMOOTHINGS[Math.max(0, Math.min(SMOOTHINGS.length - 1, at))][0] })
  }

  return {
    keys: [
      ["x", "X axis: steps, episodes, time", () => showAxis(NEXT_AXIS[viewed.x])],
      ["l", "Linear or logarithmic", () => change({ scale: viewed.scale === "log" ? "linear" : "log" })],
      ["[", "Less smoothing", () => step(-1)],
      ["]", "More smoothing", () => step(1)],
      ["r", "Show all", () => zoom(null, null)],
      ["b", "More metrics", () => multiples.toggleMore()],
    ],
    take,
    update(next) {
      const before = viewed.info
      viewed.info = next
      shares.setExplanation(next.explanation)
      if (viewed.isFitted && viewed.smooth !== viewed.fitting) viewed.smooth = smoothing.value = viewed.fitting
      showRange()
      ask(before)
    },
    destroy() {
      isOver = true
      abort.abort()
      for (const part of [reward, multiples, shares]) part.destroy()
    },
  }
}
