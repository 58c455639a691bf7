/** How values read: numbers, durations, ages, sizes. Absent values are an en dash. */

export const ABSENT = "–"

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })
const SPANS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]
const HUGE = 1e15 // beyond which digits are only a picture of the encoding
const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]

const two = (n) => String(n).padStart(2, "0")

function isAbsent(value) {
  return value === null || value === undefined || Number.isNaN(value)
}

/** All digits that matter: 1,234,567 or 0.001234. */
export function number(value, digits = 4) {
  if (isAbsent(value)) return ABSENT
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞"
  const size = Math.abs(value)
  if (size >= HUGE) return value.toExponential(digits - 2)
  if (Number.isInteger(value)) return whole.format(value)
  if (size >= 10 ** digits) return whole.format(value)
  if (size !== 0 && size < 1e-4) return value.toExponential(Math.max(1, digits - 2))
  return String(Number(value.toPrecision(digits)))
}

/** As exact as a person can use: seven digits. */
export function exact(value) {
  return number(value, 7)
}

/** Short, for axes and narrow columns: 1.2M, 340k, 0.05. */
export function compact(value) {
  if (isAbsent(value)) return ABSENT
  const size = Math.abs(value)
  if (size >= HUGE) return value.toExponential(0).replace("e+", "e")
  for (const [unit, letter] of UNITS) {
    if (size >= unit) return `${Number((value / unit).toPrecision(size / unit >= 100 ? 4 : 3))}${letter}`
  }
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("e-", "e−")
  return String(Number(value.toPrecision(3)))
}

/**
 * Ticks of an axis, with as many digits as tell them apart: 62.1M, 62.2M; but 62,490,100 where short numbers would not.
 */
export function tickTexts(ticks, step) {
  const largest = Math.max(...ticks.map((tick) => Math.abs(tick ?? 0)))
  const [unit, letter] = UNITS.find(([size]) => largest >= size) ?? [1, ""]
  let digits = 0
  const isWhole = (size) => Math.round(size) > 0 && Math.abs(size - Math.round(size)) < 1e-3
  while (digits < 7 && !isWhole((step / unit) * 10 ** digits)) digits += 1
  if (largest >= HUGE) return ticks.map((tick) => (tick === null ? "" : compact(tick)))
  if (digits > 3 && unit > 1) return ticks.map((tick) => (tick === null ? "" : whole.format(tick)))
  if (unit === 1 && (digits > 5 || largest === 0)) return ticks.map((tick) => (tick === null ? "" : compact(tick)))
  const short = (tick) => (tick === 0 ? "0" : `${Number((tick / unit).toFixed(digits))}${letter}`)
  return ticks.map((tick) => (tick === null ? "" : short(tick)))
}

export function percent(share, digits = 0) {
  return isAbsent(share) ? ABSENT : `${(share * 100).toFixed(digits)} %`
}

/** 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  if (isAbsent(seconds)) return ABSENT
  const sign = seconds < 0 ? "-" : ""
  const s = Math.abs(seconds)
  if (s < 10) return `${sign}${Number(s.toPrecision(2))} s`
  if (s < 60) return `${sign}${Math.round(s)} s`
  const at = s < 3600 ? 2 : s < 86400 ? 1 : 0
  const [[large, largeName], [small, smallName]] = SPANS.slice(at, at + 2)
  const first = Math.floor(s / large)
  const second = Math.floor((s - first * large) / small)
  return `${sign}${first} ${largeName}${second ? ` ${second} ${smallName}` : ""}`
}

/** For a time axis: 0:30, 12:00, 1:05:00; below one second from tick to tick 4.5 s. */
export function clock(seconds, step = 1) {
  if (step < 1) return `${seconds.toFixed(1)} s`
  const s = Math.round(Math.abs(seconds))
  const minutes = Math.floor(s / 60)
  const hours = Math.floor(minutes / 60)
  const text = hours ? `${hours}:${two(minutes % 60)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`
  return seconds < 0 ? `-${text}` : text
}

/** How long ago a moment (POSIX seconds) was, in one unit. */
export function age(moment, now = Date.now() / 1000) {
  if (isAbsent(moment)) return ABSENT
  const s = now - moment
  if (s < 5) return "now"
  if (s < 60) return `${Math.floor(s)} s ago`
  if (s < 3600) return `${Math.floor(s / 60)} min ago`
  if (s < 86400 * 2) return `${Math.floor(s / 3600)} h ago`
  if (s < 86400 * 60) return `${Math.floor(s / 86400)} d ago`
  return date(moment).slice(0, 10)
}

/** A moment (POSIX seconds) in local time: 2026-11-30 04:03:22. */
export function date(moment) {
  if (isAbsent(moment)) return ABSENT
  const d = new Date(moment * 1000)
  const day = [d.getFullYear(), two(d.getMonth() + 1), two(d.getDate())].join("-")
  return `${day} ${[d.getHours(), d.getMinutes(), d.getSeconds()].map(two).join(":")}`
}

export function bytes(n) {
  if (isAbsent(n)) return ABSENT
  const units = ["B", "kB", "MB", "GB", "TB"]
  let at = 0
  while (n >= 1000 && at < units.length - 1) { n /= 1000; at += 1 }
  return `${at ? Number(n.toPrecision(3)) : n} ${units[at]}`
}

/** What an x axis shows at a position. */
export function position(x, value) {
  if (x === "time") return duration(value)
  return `${x === "episodes" ? "episode" : "step"} ${whole.format(value)}`
}

export function plural(n, one, many = `${one}s`) {
  return `${whole.format(n)} ${n === 1 ? one : many}`
}
