/** Curves of one run that keep up with it: asked for once, then only for what is new. */

import { get } from "./api.js"

/**
 * Hold some curves. `wanted()` says what is wanted now: `{names, x, smooth, from, to, points}`, or null for nothing;
 * `arrived(series)` is called with a Map of name to `{x, min, max, mean, smooth, n, isWhole}` whenever it changed, and
 * `failed(problem)` when the server refused.
 */
export function makeSource(id, wanted, arrived, failed) {
  let held = new Map()
  let key = ""
  let cursor = null
  let abort = null
  let isAgain = false
  let isOver = false

  async function ask() {
    const plan = wanted()
    if (isOver || plan === null || !plan.names.length) return
    const params = { name: plan.names, x: plan.x, from: plan.from, to: plan.to, points: plan.points, smooth: plan.smooth }
    const now = JSON.stringify(params)
    if (now !== key) {
      abort?.abort()
      abort = null
      cursor = null
      key = now
    } else if (abort) {
      isAgain = true
      return
    }
    const mine = new AbortController()
    abort = mine
    isAgain = false
    try {
      const answer = await get(`api/runs/${id}/series`, cursor ? { ...params, cursor } : params, { signal: mine.signal })
      if (isOver || abort !== mine) return
      abort = null
      const isNews = take(answer)
      cursor = answer.cursor
      if (isNews) arrived(held, answer)
    } catch (problem) {
      if (problem.name === "AbortError" || abort !== mine) return
      abort = null
      cursor = null
      failed(problem)
      return
    }
    if (isAgain) ask()
  }

  function take({ is_appended: isAppended, series }) {
    if (!isAppended) {
      held = new Map(series.map((one) => [one.name, { x: one.x, min: one.min, max: one.max, mean: one.mean, smooth: one.smooth, n: one.n, isWhole: one.is_whole }]))
      return true
    }
    let isNews = false
    for (const one of series) {
      const before = held.get(one.name)
      if (!before || !one.x.length) continue
      isNews = true
      for (const column of ["x", "min", "max", "mean", "smooth"]) if (before[column] && one[column]) before[column].push(...one[column])
      before.n = Math.max(before.n, one.n, before.x.length)
    }
    // What was appended is not in buckets: a long watched curve is asked for anew, so that it stays small.
    const longest = Math.max(0, ...[...held.values()].map((one) => one.x.length))
    if (longest > (wanted()?.points ?? 1200) * 2) {
      cursor = null
      isAgain = true
      key = ""
    }
    return isNews
  }

  return {
    ask,
    of: (name) => held.get(name) ?? null,
    destroy() {
      isOver = true
      abort?.abort()
    },
  }
}
