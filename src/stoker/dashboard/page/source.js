/** Curves of one run that keep up with it: asked for once, then only for what is new. */

import { get } from "./api.js"

const AT_ONCE = 30
const LONGEST = 6000
const COLUMNS = ["x", "min", "max", "mean", "smooth"]

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
    const parts = inParts(names)
    try {
      const answers = await Promise.all(parts.map((part, at) =>
        get(`api/runs/${id}/series`, { name: part, ...params, cursor: cursors[at] }, { signal: mine.signal })))
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
        held.set(one.name, { ...one, isWhole: one.is_whole })
      } else if (one.x.length) {
        isNews = true
        for (const column of COLUMNS) if (before[column] && one[column]) before[column].push(...one[column])
        before.n = Math.max(before.n, one.n, before.x.length)
      }
    }
    return isNews
  }

  /** What was appended is in no bucket: long watched curves are asked for anew, so that they stay small. */
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

/** Names for one request each: not too many, and no address that is too long. */
function inParts(names) {
  const parts = [[]]
  let length = 0
  for (const name of names) {
    const own = encodeURIComponent(name).length
    if (parts.at(-1).length >= AT_ONCE || (parts.at(-1).length && length + own > LONGEST)) {
      parts.push([])
      length = 0
    }
    parts.at(-1).push(name)
    length += own
  }
  return parts
}
