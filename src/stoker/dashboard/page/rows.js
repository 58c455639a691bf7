/** Rows of the list of runs. */

import { h, statusIcon } from "./dom.js"
import { ABSENT, age, compact, date, number, percent, plural } from "./format.js"
import { link } from "./router.js"
import { drawSpark } from "./spark.js"

/** How many runs one comparison takes. */
export const MOST_COMPARED = 100

/** Statuses that need no reason beside them; it is in their tooltip. */
const SAYS_ENOUGH = new Set(["live", "done"])

/** What a row shows, as a text: a row whose text is the same is not made anew. */
export function signature(entry, isSelected, spark) {
  if (entry.kind === "group") {
    return [entry.group, entry.isClosed, isSelected, entry.runs.map((run) => [run.status, run.best_value, age(run.last_updated)])].join("|")
  }
  const { run } = entry
  return [run.status, run.reason, run.total_steps, run.wanted_steps, run.best_value, run.last_mean, run.steps_per_s, age(run.last_updated), entry.isInGroup, isSelected, spark].join("|")
}

/** One run: everything that decides whether to open it. */
export function runRow(entry, isSelected, spark, select) {
  const { run, isInGroup } = entry
  const title = isInGroup ? run.run_id : `${run.name} / ${run.version} / ${run.run_id}`
  const about = [run.agent, run.env !== run.name ? run.env : null, run.seed !== null && run.seed !== undefined ? `seed ${run.seed}` : null]
  const share = run.wanted_steps ? Math.min(1, run.total_steps / run.wanted_steps) : null
  const curve = h("span", { class: "cell spark", role: "cell" })
  drawSpark(curve, spark)
  return h("div", { class: `row run ${isInGroup ? "in-group" : ""} ${isSelected ? "selected" : ""}`, role: "row", dataset: { id: run.id } },
    h("span", { class: "cell pick", role: "cell" },
      h("input", { type: "checkbox", checked: isSelected, "aria-label": `Select ${title}`, onclick: (event) => select([run], event.target.checked, event.shiftKey) })),
    h("span", { class: "cell name", role: "cell" },
      h("a", { class: "title", href: link("run", run.id), title: run.path }, isInGroup ? h("bdi", {}, run.run_id)
        : [h("bdi", {}, run.name), h("span", { class: "muted" }, " / ", h("bdi", {}, run.version), " / ", h("bdi", {}, run.run_id))]),
      h("small", {}, about.filter(Boolean).map((text, at) => [at ? " · " : null, h("bdi", {}, text)]))),
    h("span", { class: "cell state", role: "cell", title: run.reason },
      h("span", { class: "status" }, statusIcon(run.status), h("b", {}, run.status), SAYS_ENOUGH.has(run.status) ? null : h("small", {}, run.reason))),
    curve,
    numberCell("best", run.best_value, "Best evaluation", run.best_step === null ? null : `at step ${number(run.best_step)}`),
    numberCell("last", run.last_mean, "Mean reward of the last 100 episodes"),
    h("span", { class: "cell steps", role: "cell", title: `${number(run.total_steps)}${run.wanted_steps ? ` of ${number(run.wanted_steps)} steps` : " steps"}` },
      h("span", { class: "steps-text" }, compact(run.total_steps), run.wanted_steps ? h("small", {}, ` / ${compact(run.wanted_steps)}`) : null,
        share !== null && share < 1 ? h("small", { class: "share" }, percent(share)) : null),
      share === null || share >= 1 ? null : h("span", { class: "bar" }, h("i", { style: { width: `${share * 100}%` } }))),
    h("span", { class: "cell speed", role: "cell", title: "Steps per second" }, compact(run.steps_per_s)),
    h("span", { class: "cell updated", role: "cell", title: `Began ${date(run.started_at)}, last written ${date(run.last_updated)}` }, age(run.last_updated)))
}

function numberCell(name, value, title, more = null) {
  return h("span", { class: `cell ${name}`, role: "cell", title: value === null ? `${title}: none` : `${title}: ${number(value, 7)}${more ? ` ${more}` : ""}` },
    value === null || value === undefined ? h("span", { class: "muted" }, ABSENT) : number(value))
}

/** The heading of a group: how many, how they stand, the best of them. */
export function groupRow(entry, isSelected, select, toggle) {
  const { group, runs, isClosed } = entry
  const counts = new Map()
  for (const run of runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1)
  const known = runs.map((run) => run.best_value).filter((value) => value !== null && value !== undefined)
  const cut = group.lastIndexOf("/")
  const name = cut > 0 ? [group.slice(0, cut), group.slice(cut + 1)] : [group, ""]
  return h("div", { class: "row group", role: "row", dataset: { group } },
    h("span", { class: "cell pick", role: "cell" },
      h("input", { type: "checkbox", checked: isSelected, "aria-label": `Select all of ${group}`, onclick: (event) => select(runs, event.target.checked, false) })),
    h("span", { class: "cell group-name", role: "cell" },
      h("button", { class: "fold", "aria-expanded": String(!isClosed), onclick: () => toggle(group), title: isClosed ? "Unfold" : "Fold" },
        h("span", { class: "caret", "aria-hidden": "true" }, "›"), h("span", { class: "title" }, h("bdi", {}, name[0]), h("span", { class: "muted" }, " / ", h("bdi", {}, name[1])))),
      h("small", {}, plural(runs.length, "run")),
      [...counts].map(([status, n]) => h("small", { class: "status" }, statusIcon(status), `${n} ${status}`))),
    h("span", { class: "cell group-best", role: "cell" },
      known.length ? [h("small", {}, "best "), number(Math.max(...known))] : null),
    h("span", { class: "cell", role: "cell" },
      h("a", { class: "text-link", href: link("compare", null, { ids: runs.slice(0, MOST_COMPARED).map((run) => run.id).join(","), group_by: "version" }), "aria-label": `Compare the runs of ${group}` }, "Compare")))
}
