/** What a comparison offers to be chosen: the series that its runs have, and the keys that they can be grouped by. */

import { titleOf } from "./panels.js"
import { EVALUATION } from "./view-state.js"

const KINDS = [
  ["reward", "Reward"], ["length", "Length"], ["loss", "Losses"], ["exploration", "Exploration"],
  ["staleness", "Staleness"], ["speed", "Speed"], ["time", "Where the time goes"], ["other", "Other"],
]

/** Series for a menu: `[[heading, [[name, label], ...]], ...]`; `lists` are the series of some runs. */
export function seriesOffered(lists, chosen) {
  const found = new Map([[EVALUATION, { label: "Evaluation reward", group: "reward" }]])
  for (const { name, group, of } of [...lists].flat()) {
    if (name === "eval.total_reward") continue // the means of the evaluations stand for it
    if (!found.has(name)) found.set(name, { label: of === "eval" ? `${titleOf(name)} (evaluation)` : titleOf(name), group })
  }
  if (!found.has(chosen)) found.set(chosen, { label: chosen, group: "other" })
  const times = new Map()
  for (const { label } of found.values()) times.set(label, (times.get(label) ?? 0) + 1)
  const all = [...found].map(([name, { label, group }]) => ({ name, group, label: times.get(label) > 1 ? `${label} (${name})` : label }))
  const known = new Set(KINDS.map(([kind]) => kind))
  return KINDS.map(([kind, heading]) => [heading, all
    .filter(({ group }) => group === kind || (kind === "other" && !known.has(group)))
    .map(({ name, label }) => [name, label])])
}

/** The name of a series as the menu has it. */
export function labelIn(offered, name) {
  return offered.flatMap(([, options]) => options).find(([one]) => one === name)?.[1] ?? name
}

/** Keys for a menu: nothing, the version, and the settings in which the runs differ. */
export function groupingsOffered(diff, chosen) {
  const differing = (diff?.keys ?? []).filter(({ differs }) => differs).map(({ key }) => [key, key])
  const always = [["none", "nothing: each run"], ["version", "name and version"]]
  if (![...always, ...differing].some(([key]) => key === chosen)) differing.push([chosen, chosen])
  return [["", always], ["Config", differing]]
}
