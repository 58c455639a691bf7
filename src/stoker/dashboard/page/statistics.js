/**
 * The server's statistics for a report, which has no server: smoothing, and several curves as one with its interval.
 *
 * `stoker.runs.averaging` says which grid, interval and random draws these are; a test compares both. NaN is a gap.
 */

const RESAMPLES = 2000

/**
 * Smooth a curve: "mean:50" is a trailing mean, "ema:0.98" the debiased exponential average.
 *
 * A value may stand for several rows (`counts`): a window then has whole values, at least as many rows as it should.
 */
export function smoothed(values, counts, how) {
  const [kind, amount] = [how.split(":")[0], Number(how.split(":")[1])]
  return kind === "ema" ? exponential(values, counts, amount) : trailing(values, counts, amount)
}

function exponential(values, counts, weight) {
  let [average, rows] = [0, 0]
  return values.map((value, i) => {
    if (!Number.isFinite(value)) return NaN
    const kept = weight ** counts[i]
    average = kept * average + (1 - kept) * value
    rows += counts[i]
    return average / (1 - weight ** rows)
  })
}

function trailing(values, counts, window) {
  const known = []
  let first = 0
  let rows = 0
  return values.map((value, i) => {
    if (!Number.isFinite(value)) return NaN
    known.push(i)
    rows += counts[i]
    while (rows - counts[known[first]] >= window) rows -= counts[known[first++]]
    // Summed anew each time: a running sum would carry one huge value along for ever.
    let sum = 0
    for (let k = first; k < known.length; k++) sum += values[known[k]] * counts[known[k]]
    return sum / rows
  })
}

/**
 * Several curves as one: `{x, mid, low, high, n, curves, kept}`.
 *
 * `curves` are `{x, y}` with ascending x; `factors[k]` is Student's factor for k curves; `strata` are names, one for
 * each curve, within which the bootstrap draws.
 */
export function compared(curves, { statistic, points, from = null, to = null, strata, factors }) {
  const known = curves.map(({ x, y }) => {
    const places = [...x.keys()].filter((i) => Number.isFinite(y[i]) && Number.isFinite(x[i]))
    return { x: places.map((i) => x[i]), y: places.map((i) => y[i]) }
  })
  const isIn = ({ x }) => x.length > 0 && (from === null || x[x.length - 1] >= from) && (to === null || x[0] <= to)
  const kept = [...known.keys()].filter((i) => isIn(known[i]))
  const chosen = kept.map((i) => known[i])
  const { grid, cell } = gridOf(chosen, points, from, to)
  const every = chosen.map((curve) => onGrid(curve, grid, cell))
  const there = [...grid.keys()].filter((i) => every.some((values) => !Number.isNaN(values[i])))
  const values = every.map((one) => there.map((i) => one[i]))
  const middle = statistic === "iqm" ? interquartile(values, there.length, kept.map((i) => strata[i])) : means(values, there.length, factors)
  return { x: there.map((i) => grid[i]), ...middle, curves: values, kept }
}

function gridOf(curves, points, from, to) {
  if (!curves.length) return { grid: [], cell: 0 }
  const lowest = Math.min(...curves.map(({ x }) => x[0]))
  const highest = Math.max(...curves.map(({ x }) => x[x.length - 1]))
  const first = from === null ? lowest : Math.max(from, lowest)
  const last = to === null ? highest : Math.min(to, highest)
  if (first > last) return { grid: [], cell: 0 }
  const own = new Set([from === null ? null : first, to === null ? null : last].filter((end) => end !== null))
  for (const { x } of curves) for (const at of x) if (at >= first && at <= last) own.add(at)
  if (own.size <= points) return { grid: [...own].sort((a, b) => a - b), cell: 0 }
  const cell = (last - first) / (points - 1)
  return { grid: Array.from({ length: points }, (_, i) => (i === points - 1 ? last : first + i * cell)), cell }
}

/** The curve at the grid, straight between the means of its cells; NaN beyond its ends. */
function onGrid(curve, grid, cell) {
  const { x, y } = reduced(curve, grid, cell)
  const [first, last] = [curve.x[0] - cell / 2, curve.x[curve.x.length - 1] + cell / 2]
  let i = 0
  return grid.map((at) => {
    if (at < first || at > last) return NaN
    if (at <= x[0]) return y[0]
    while (i < x.length - 1 && x[i + 1] <= at) i++
    return i === x.length - 1 ? y[i] : y[i] + ((y[i + 1] - y[i]) / (x[i + 1] - x[i])) * (at - x[i])
  })
}

function reduced(curve, grid, cell) {
  const [x, y] = [[], []]
  let [sumX, sumY, n, next] = [0, 0, 0, 0]
  const close = () => {
    if (n) x.push(sumX / n), y.push(sumY / n)
    sumX = sumY = n = 0
  }
  curve.x.forEach((at, i) => {
    if (!cell) {
      if (i && at > curve.x[i - 1]) close()
    } else {
      const before = next
      while (next < grid.length && grid[next] - cell / 2 <= at) next++
      if (next !== before) close()
    }
    sumX += at
    sumY += curve.y[i]
    n += 1
  })
  close()
  return { x, y }
}

function present(values, i) {
  return values.map((one) => one[i]).filter((value) => !Number.isNaN(value))
}

function means(values, length, factors) {
  const found = { mid: [], low: [], high: [], n: [] }
  for (let i = 0; i < length; i++) {
    const some = present(values, i)
    const mid = some.reduce((sum, value) => sum + value, 0) / some.length
    const squares = some.reduce((sum, value) => sum + (value - mid) ** 2, 0)
    const half = some.length > 1 ? factors[some.length] * Math.sqrt(squares / (some.length - 1) / some.length) : 0
    add(found, mid, mid - half, mid + half, some.length)
  }
  return found
}

function add(found, mid, low, high, n) {
  found.mid.push(mid)
  found.low.push(low)
  found.high.push(high)
  found.n.push(n)
}

function interquartile(values, length, strata) {
  const found = { mid: [], low: [], high: [], n: [] }
  let [drawn, drawnFor] = [null, null]
  for (let i = 0; i < length; i++) {
    const who = [...values.keys()].filter((k) => !Number.isNaN(values[k][i]))
    const key = who.join()
    if (key !== drawnFor) [drawn, drawnFor] = [drawsOf(who.map((k) => strata[k])), key]
    const some = who.map((k) => values[k][i])
    const order = [...some.keys()].sort((a, b) => some[a] - some[b])
    const once = new Uint16Array(some.length).fill(1)
    const means = Float64Array.from(drawn, ({ counts }) => trimmedMean(some, order, counts))
    const ranked = [...means.keys()].sort((a, b) => means[a] - means[b]).map((k) => ({ mean: means[k], times: drawn[k].times }))
    add(found, trimmedMean(some, order, once), quantile(ranked, 0.025), quantile(ranked, 0.975), some.length)
  }
  return found
}

/** The mean without floor(n / 4) values at each end; a value counts as often as `counts` says. */
function trimmedMean(values, order, counts) {
  const cut = Math.floor(values.length / 4)
  const end = values.length - cut
  let [at, sum] = [0, 0]
  for (const k of order) {
    const taken = Math.min(at + counts[k], end) - Math.max(at, cut)
    if (taken > 0) sum += taken * values[k]
    at += counts[k]
  }
  return sum / (end - cut)
}

/** The different resamples: `counts`, how often each curve is in it, and `times`, how often it was drawn. */
function drawsOf(strata) {
  const members = new Map()
  for (const name of strata) members.set(name, (members.get(name) ?? 0) + 1)
  const names = strata.map((name) => (members.get(name) > 1 ? `=${name}` : ""))
  const owns = names.map((name) => [...names.keys()].filter((k) => names[k] === name))
  const next = mulberry32()
  const found = new Map()
  for (let draw = 0; draw < RESAMPLES; draw++) {
    const counts = new Uint16Array(strata.length)
    for (const own of owns) counts[own[Math.floor((next() * own.length) / 2 ** 32)]] += 1
    const key = counts.join()
    if (!found.has(key)) found.set(key, { counts, times: 0 })
    found.get(key).times += 1 // few curves have few different draws: each is computed once
  }
  return [...found.values()]
}

/** Tommy Ettinger's generator with seed 0: unsigned integers of 32 bits. */
function mulberry32() {
  let state = 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
}

/** The quantile of all resamples, between the nearest two. */
function quantile(ranked, share) {
  const place = share * (RESAMPLES - 1)
  const below = Math.floor(place)
  const [low, high] = [meanAt(ranked, below), meanAt(ranked, below + 1)]
  return low + (high - low) * (place - below)
}

function meanAt(ranked, rank) {
  let before = 0
  for (const { mean, times } of ranked) {
    before += times
    if (before > rank) return mean
  }
  return NaN
}
