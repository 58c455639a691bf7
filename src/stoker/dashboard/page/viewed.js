/** What is shown of a run: the run as it is known now, and the axis, range, scale and smoothing of its charts. */

const FITTING = [
  [100_000, "mean:1000"], [20_000, "mean:200"], [5000, "mean:100"], [1000, "mean:50"], [400, "mean:20"],
  [100, "mean:10"], [0, "mean:5"],
]
const AXES = ["steps", "episodes", "time"]
const SMOOTHING = /^(mean:\d{1,6}|ema:0?\.\d+)$/

/** The charts of a run share one of these; whoever changes it has them drawn. */
export class Viewed {
  constructor(info) {
    this.info = info
    this.x = "steps"
    this.scale = "linear"
    this.smooth = ""
    this.isFitted = true // no smoothing was chosen: the one that fits the run
    this.from = null
    this.to = null
  }

  /** Take up what an address says. */
  take(query) {
    this.x = AXES.includes(query.x) ? query.x : "steps"
    this.scale = query.scale === "log" ? "log" : "linear"
    this.from = numberOf(query.from)
    this.to = numberOf(query.to)
    if (this.from !== null && this.to !== null && this.from >= this.to) this.from = this.to = null
    this.isFitted = query.smooth !== "off" && !SMOOTHING.test(query.smooth ?? "")
    this.smooth = this.isFitted ? this.fitting : query.smooth === "off" ? "" : query.smooth
  }

  /** What an address has to say, so that it shows the same. */
  get query() {
    return {
      x: this.x === "steps" ? null : this.x,
      smooth: this.isFitted ? null : this.smooth || "off",
      scale: this.scale === "log" ? "log" : null,
      from: this.from,
      to: this.to,
    }
  }

  get isWhole() {
    return this.from === null && this.to === null
  }

  /** The smoothing that shows a curve's course without hiding its turns. */
  get fitting() {
    return FITTING.find(([least]) => (this.info.total_episodes ?? 0) >= least)[1]
  }

  /** Records are fewer than episodes: the same smoothing reaches over the same part of the run. */
  get smoothOfRecords() {
    const [kind, width] = this.smooth.split(":")
    if (kind !== "mean") return this.smooth
    const records = Math.round((Number(width) * this.rows("metrics")) / (this.info.total_episodes || 1))
    return records > 1 ? `mean:${records}` : ""
  }

  /** The smoothing in words. */
  get smoothName() {
    return this.smooth.startsWith("ema") ? `exponential mean ${this.smooth.slice(4)}` : `mean of ${this.smooth.slice(5)}`
  }

  has(name) {
    return this.info.series.some((one) => one.name === name)
  }

  /** How many rows of "train", "eval" or "metrics" there are. */
  rows(of) {
    return this.info.series.find((one) => one.of === of)?.n ?? 0
  }

  /** Where the run ends on the axis, as far as its line in the list says. */
  get end() {
    const { info } = this
    if (this.x === "steps") return info.total_steps
    if (this.x === "episodes") return info.total_episodes
    return info.last_updated && info.started_at ? info.last_updated - info.started_at : 0
  }
}

function numberOf(text) {
  return text !== undefined && text !== "" && Number.isFinite(Number(text)) ? Number(text) : null
}
