/** What a comparison shows, in sentences: the line, the band, how many runs are in it, what is left out. */

import { h } from "./dom.js"
import { plural, position } from "./format.js"

const LISTED = 6
const LINES = {
  mean: ["mean", "95 % interval of the mean over runs (Student's t)"],
  iqm: ["interquartile mean: the mean without the lowest and the highest quarter of the runs", "95 % interval over runs (stratified bootstrap)"],
}

/**
 * Paragraphs below the picture. `names` is a map from id to name; `missing` counts runs that are not there, `unseen`
 * single runs that are too many to be drawn, `nEnvs` the environments of the runs.
 */
export function captionOf(answer, { statistic, x, group, names, missing, unseen, nEnvs }) {
  const parts = []
  const several = answer.groups.filter(({ n_runs: n }) => n > 1)
  if (several.length) {
    const [line, band] = LINES[statistic]
    parts.push(h("p", {}, `Line: ${line}. Band: ${band}.`))
    if (statistic === "iqm" && several.some(({ n_runs: n }) => n < 4)) {
      parts.push(h("p", {}, "Of fewer than 4 runs the interquartile mean is the mean, and the bootstrap's interval is too narrow."))
    }
    if (unseen) parts.push(h("p", {}, `The ${unseen} single runs are too many to be drawn: hide lines to see those of the others.`))
    const shrinking = several.map((one) => thinned(one, x)).filter(Boolean)
    if (shrinking.length) parts.push(listed("Dotted where a group has fewer runs", shrinking))
  } else if (group === "none" && answer.groups.length > 1) {
    parts.push(h("p", {}, "Each line is one run. Group by a key to see the mean of several with its interval."))
  }
  if (nEnvs > 1) parts.push(h("p", {}, `These runs are of ${nEnvs} environments: their rewards have no common scale.`))
  const left = answer.left_out.map(({ id, reason }) => `${names.get(id) ?? id}: ${reason}`)
  if (missing > 0) left.push(`${plural(missing, "run")} of this address ${missing === 1 ? "is" : "are"} not here`)
  if (left.length) parts.push(listed("Left out", left))
  return parts
}

/** Where a group has fewer runs than it counts, at its end. */
function thinned({ label, x: places, n, n_runs: nRuns }, x) {
  const last = n.findLastIndex((count) => count === nRuns)
  if (last === n.length - 1 || !n.length) return null
  if (last < 0) return `${label}: at no place all ${nRuns}`
  return `${label}: ${n[n.length - 1]} of ${nRuns} beyond ${position(x, Math.round(places[last]))}`
}

function listed(heading, texts) {
  if (texts.length === 1) return h("p", {}, `${heading}: ${texts[0]}.`)
  const rest = texts.length - LISTED
  return h("details", { open: texts.length <= LISTED }, h("summary", {}, `${heading}: ${texts.length}`),
    h("ul", {}, texts.slice(0, LISTED).map((text) => h("li", {}, text)), rest > 0 && h("li", {}, `and ${rest} more`)))
}
