/** Which small charts a run gets, from the curves that it has. */

// A Map: a metric may be called "constructor".
const NAMES = new Map(Object.entries({
  fps: "steps per second", opt_steps_per_sec: "optimization steps per second", ent_coef: "entropy coefficient",
  approx_kl: "approximate KL divergence", clip_fraction: "clipped fraction", n_updates: "updates", length: "episode length",
  n_epochs: "epochs", period_s: "seconds per record", passes_per_s: "forward passes per second", lock_held: "interpreter lock held",
  cpus: "processors in use", other_cpus: "processors wanted by others", exploration_rate: "exploration rate",
  explained_variance: "explained variance", q_mean: "mean Q value",
}))
const ORDER = ["length", "loss", "exploration", "staleness", "speed"]
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
  const useful = series.filter(({ name, of, group }) => of !== "eval" && name !== "train.total_reward" && group !== "time" && !SAME_AS_REWARD.has(name) && !name.startsWith("metrics.eval/"))
  const groups = new Map()
  const baseOf = ({ name }) => name.replace(/_(mean|max|min)$/, "")
  const counts = new Map()
  for (const one of useful) counts.set(baseOf(one), (counts.get(baseOf(one)) ?? 0) + 1)
  for (const one of useful) {
    const base = baseOf(one)
    const key = counts.get(base) > 1 ? base : one.name
    const found = groups.get(key) ?? { key, group: one.group, of: one.of, title: titleOf(key), curves: [] }
    found.curves.push({ name: one.name, of: one.of, label: key === one.name ? titleOf(one.name).toLowerCase() : one.name.slice(base.length + 1) })
    groups.set(key, found)
  }
  const panels = [...groups.values()]
  const hasOwn = (group) => panels.some((panel) => panel.group === group && panel.of === "metrics" && !panel.key.startsWith("metrics.load/"))
  const isFirst = (panel) => {
    if (!ORDER.includes(panel.group)) return false
    if (panel.of === "train") return panel.group === "length" ? panel.key === "train.length" : !hasOwn(panel.group)
    return !panel.key.startsWith("metrics.load/")
  }
  const first = panels.filter(isFirst).sort((a, b) => ORDER.indexOf(a.group) - ORDER.indexOf(b.group))
  const more = panels.filter((panel) => !isFirst(panel))
  const taken = new Set()
  for (const panel of [...first, ...more]) {
    if (taken.has(panel.title)) panel.title += ` (${panel.key.replace(/^metrics\./, "").replace(/^train\./, "").replace(/\/[^/]*$/, "").replace(/^extras\..*/, "per episode")})`
    taken.add(panel.title)
  }
  return { first: first.slice(0, 12), more: [...first.slice(12), ...more] }
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
  return { ...curve, x: pick(curve.x), min: pick(curve.min), max: pick(curve.max), mean: pick(curve.mean), smooth: pick(curve.smooth) }
}
