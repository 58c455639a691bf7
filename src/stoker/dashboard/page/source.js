/** Curves of one run that keep up with it: asked for once, then only for what is new. */

import { get } from "./api.js"

const AT_ONCE = 30

/**
 * Hold some curves. `wanted()` says what is wanted now: `{names, x, smooth, from, to, points}`, or null for nothing;
 * `arrived()` is called whenever a curve changed, and `failed(problem)` when the server refused. `of(name)` gives one
 * as `{x, min, max, mean, smooth, n, isWhole}`, or null.
 */
export function makeSource(id, wanted, arrived, failed) {
  let held = new Map()
  let key = ""
  let cursors = []
  let abort = null
  let isAgain = false
  let isOver = false

  async function ask() {
    const plan = wanted()
    if (isOver || plan === null || !plan.names.length) return
    const { names, ...params } = plan
    const now = JSON.stringify(plan)
    const isOther = now !== key
    if (isOther) {
      abort?.abort()
      abort = null
      cursors = []
      key = now
    } else if (abort) {
      isAgain = true
      return
    }
    const mine = new AbortController()
    abort = mine
    isAgain = false
    const parts = []
    for (let at = 0; at < names.length; at += AT_ONCE) parts.push(names.slice(at, at + AT_ONCE))
    try {
      const answers = await Promise.all(parts.map((part, at) =>
        get(`api/runs/${id}/series`, { name: part, ...params, ...(cursors[at] ? { cursor: cursors[at] } : {}) }, { signal: mine.signal })))
      if (isOver || abort !== mine) return
      abort = null
      if (isOther) held = new Map()
      cursors = answers.map((answer) => answer.cursor)
      const isNews = answers.map(take).some(Boolean)
      forgetLong(plan.points)
      if (isNews) arrived()
    } catch (problem) {
      if (problem.name === "AbortError" || abort !== mine) return
      abort = null
      cursors = []
      failed(problem)
      return
    }
    if (isAgain) ask()
  }

  function take({ is_appended: isAppended, series }) {
    let isNews = false
    for (const one of series) {
      const before = held.get(one.name)
      if (!isAppended || !before) {
        isNews = true
        held.set(one.name, { x: one.x, min: one.min, max: one.max, mean: one.mean, smooth: one.smooth, n: one.n, isWhole: one.is_whole })
      } else if (one.x.length) {
        isNews = true
        for (const column of ["x", "min", "max", "mean", "smooth"]) if (before[column] && one[column]) before[column].push(...one[column])
        before.n = Math.max(before.n, one.n, before.x.length)
      }
    }
    return isNews
  }

  /** What was appended is not in buckets: curves that are watched for long are asked for anew, so that they stay small. */
  function forgetLong(points) {
    if ([...held.values()].some((one) => one.x.length > points * 2)) {
      cursors = []
      isAgain = true
    }
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
