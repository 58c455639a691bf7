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
export function signature({ kind, group, runs, isClosed, isInGroup }, isSelected, spark) {
  if (kind === "group") {
    return [group, isClosed, isSelected, runs.map((run) => [run.id, run.status, run.best_value])].join("|")
  }
  const [run] = runs
  return [
    run.status, run.reason, run.total_steps, run.wanted_steps, run.best_value, run.last_mean, run.steps_per_s,
    age(run.last_updated), isInGroup, isSelected, spark,
  ].join("|")
}

/** One run: everything that decides whether to open it. `select(runs, isOn, isRange)` is called by its box. */
export function runRow({ runs: [run], isInGroup }, isSelected, spark, select) {
  const curve = cell("spark", null)
  drawSpark(curve, spark)
  const best = run.best_step === null ? "" : ` at step ${number(run.best_step)}`
  const updated = `Began ${date(run.started_at)}, last written ${date(run.last_updated)}`
  return h("div", {
    class: `row run ${isInGroup ? "in-group" : ""} ${isSelected ? "selected" : ""}`, role: "row", dataset: { id: run.id },
  },
  box(`Select ${run.name} / ${run.version} / ${run.run_id}`, isSelected,
    (event) => select([run], event.target.checked, event.shiftKey)),
  cell("name", null, nameOf(run, isInGroup), h("small", {}, aboutOf(run))),
  cell("state", run.reason, h("span", { class: "status" }, statusIcon(run.status), h("b", {}, run.status),
    SAYS_ENOUGH.has(run.status) ? null : h("small", {}, run.reason.replace(/^attempt failed(:|(?= in)) ?/, "")))),
  curve,
  value("best", run.best_value, `Best evaluation: ${number(run.best_value, 7)}${best}`),
  value("last", run.last_mean, `Mean reward of the last 100 episodes: ${number(run.last_mean, 7)}`),
  stepsOf(run),
  cell("speed", "Steps per second", compact(run.steps_per_s)),
  cell("updated", updated, age(run.last_updated)))
}

const cell = (name, title, ...children) => h("span", { class: `cell ${name}`, role: "cell", title }, children)

const box = (label, checked, onclick) =>
  cell("pick", null, h("input", { type: "checkbox", checked, "aria-label": label, onclick }))

const value = (name, one, title) => (one === null || one === undefined
  ? cell(name, null, h("span", { class: "muted" }, ABSENT)) : cell(name, title, number(one)))

function nameOf(run, isInGroup) {
  const place = h("span", { class: "muted" }, " / ", h("bdi", {}, run.version), " / ", h("bdi", {}, run.run_id))
  return h("a", { class: "title", href: link("run", run.id), title: run.path },
    isInGroup ? h("bdi", {}, run.run_id) : [h("bdi", {}, run.name), place])
}

function aboutOf(run) {
  const seed = run.seed === null || run.seed === undefined ? null : `seed ${run.seed}`
  const parts = [run.agent, run.env === run.name ? null : run.env, seed].filter(Boolean)
  return parts.map((text, at) => [at ? " · " : null, h("bdi", {}, text)])
}

function stepsOf(run) {
  const share = run.wanted_steps ? Math.min(1, run.total_steps / run.wanted_steps) : null
  const isOnItsWay = share !== null && share < 1
  return cell("steps", `${number(run.total_steps)}${run.wanted_steps ? ` of ${number(run.wanted_steps)}` : ""} steps`,
    h("span", { class: "steps-text" }, compact(run.total_steps),
      run.wanted_steps ? h("small", {}, ` / ${compact(run.wanted_steps)}`) : null,
      isOnItsWay ? h("small", { class: "share" }, percent(share)) : null),
    isOnItsWay ? h("span", { class: "bar" }, h("i", { style: { width: `${share * 100}%` } })) : null)
}

/** The heading of a group: how many, how they stand, the best of them. `toggle(group)` is called to fold it. */
export function groupRow({ group, runs, isClosed }, isSelected, select, toggle) {
  const counts = new Map()
  for (const run of runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1)
  const known = runs.map((run) => run.best_value).filter((one) => one !== null && one !== undefined)
  const { name, version } = runs[0]
  const ids = runs.slice(0, MOST_COMPARED).map((run) => run.id).join(",")
  return h("div", { class: "row group", role: "row", dataset: { group } },
    box(`Select all of ${group}`, isSelected, (event) => select(runs, event.target.checked, false)),
    cell("group-name", null,
      h("button", {
        class: "fold", "aria-expanded": String(!isClosed), title: isClosed ? "Unfold" : "Fold", onclick: () => toggle(group),
      },
      h("span", { class: "caret", "aria-hidden": "true" }, "›"),
      h("span", { class: "title" }, h("bdi", {}, name), h("span", { class: "muted" }, " / ", h("bdi", {}, version)))),
      h("small", {}, plural(runs.length, "run")),
      [...counts].map(([status, n]) => h("small", { class: "status" }, statusIcon(status), `${n} ${status}`))),
    cell("group-best", null, known.length ? [h("small", {}, "best "), number(Math.max(...known))] : null),
    cell("", null, h("a", {
      class: "text-link", href: link("compare", null, { ids, group_by: "version" }),
      "aria-label": `Compare the runs of ${group}`,
    }, "Compare")))
}
