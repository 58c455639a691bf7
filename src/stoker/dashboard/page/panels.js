/** Which small charts a run gets, from the curves that it has. */

// A Map: a metric may be called "constructor".
const NAMES = new Map(Object.entries({
  fps: "steps per second", opt_steps_per_sec: "optimization steps per second", ent_coef: "entropy coefficient",
  approx_kl: "approximate KL divergence", clip_fraction: "clipped fraction", n_updates: "updates", n_epochs: "epochs",
  length: "episode length", q_mean: "mean Q value", period_s: "seconds per record", cpus: "processors in use",
  passes_per_s: "forward passes per second", lock_held: "interpreter lock held", other_cpus: "processors wanted by others",
}))
const ORDER = ["length", "loss", "exploration", "staleness", "speed"]
const MOST_FIRST = 12
const LONGEST_NAME = 300 // the server is asked for none that is longer
const SAME_AS_REWARD = new Set(["metrics.rollout/ep_rew_mean", "metrics.rollout/ep_len_mean"])

/** The name of a curve for people: "train/q_mean" is "mean Q value". */
export function titleOf(name) {
  const last = name.replace(/^(train|metrics|eval)\./, "").replace(/^extras\./, "").replace(/^.*\//, "")
  const text = NAMES.get(last) ?? last.replaceAll("_", " ")
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/**
 * The panels of a run: `{first, more}`, each `[{key, title, curves: [{name, label, of}]}]`.
 *
 * Mean, least and most of one thing share a panel. What the reward chart shows, and shares of time, get none.
 */
export function panelsOf(series) {
  const useful = series.filter(isUseful)
  const groups = new Map()
  const baseOf = ({ name }) => name.replace(/_(mean|max|min)$/, "")
  const counts = new Map()
  for (const one of useful) counts.set(baseOf(one), (counts.get(baseOf(one)) ?? 0) + 1)
  for (const one of useful) {
    const base = baseOf(one)
    const key = counts.get(base) > 1 ? base : one.name
    const found = groups.get(key) ?? { key, group: one.group, of: one.of, title: titleOf(key), curves: [] }
    const label = key === one.name ? titleOf(one.name).toLowerCase() : one.name.slice(base.length + 1)
    found.curves.push({ name: one.name, of: one.of, label })
    groups.set(key, found)
  }
  const panels = [...groups.values()]
  const isRecord = ({ key, of }) => of === "metrics" && !key.startsWith("metrics.load/")
  const recorded = new Set(panels.filter(isRecord).map(({ group }) => group))
  // What a record measures as well need not be shown for each episode.
  const isFirst = (panel) => {
    if (!ORDER.includes(panel.group)) return false
    if (panel.of !== "train") return isRecord(panel)
    return panel.group === "length" ? panel.key === "train.length" : !recorded.has(panel.group)
  }
  const first = panels.filter(isFirst).sort((a, b) => ORDER.indexOf(a.group) - ORDER.indexOf(b.group))
  const more = panels.filter((panel) => !isFirst(panel))
  const taken = new Set()
  for (const panel of [...first, ...more]) {
    if (taken.has(panel.title)) panel.title += ` (${originOf(panel)})`
    taken.add(panel.title)
  }
  return { first: first.slice(0, MOST_FIRST), more: [...first.slice(MOST_FIRST), ...more] }
}

function isUseful({ name, of, group }) {
  if (name.length > LONGEST_NAME || of === "eval" || name.startsWith("metrics.eval/") || group === "time") return false
  return name !== "train.total_reward" && !SAME_AS_REWARD.has(name)
}

/** What tells two panels of one title apart. */
function originOf({ key, of }) {
  return of === "train" ? "per episode" : key.replace(/^metrics\./, "").replace(/\/[^/]*$/, "")
}

/**
 * A metric without the rows that do not have it. Rows of a record that lack the value (its value was not a number) stay
 * as gaps, if the metric is one of those that every record has.
 */
export function withoutForeignRows(curve, reference) {
  const isRecord = (i) => reference && reference.x.length === curve.x.length && reference.mean[i] !== null
  let [records, known] = [0, 0]
  curve.mean.forEach((value, i) => {
    if (!isRecord(i)) return
    records += 1
    if (value !== null) known += 1
  })
  const keepsGaps = records > 0 && known >= records * 0.5
  const kept = curve.mean.map((value, i) => value !== null || (keepsGaps && isRecord(i)))
  if (kept.every(Boolean)) return curve
  const pick = (values) => values?.filter((_, i) => kept[i]) ?? null
  const [x, min, max, mean, smooth] = [curve.x, curve.min, curve.max, curve.mean, curve.smooth].map(pick)
  return { ...curve, x, min, max, mean, smooth }
}
