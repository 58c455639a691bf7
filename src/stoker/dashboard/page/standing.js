/** The head of a run: what it is, whether it is alive and why not, and the numbers that people look for first. */

import { h, put, renew, statusIcon } from "./dom.js"
import { makeLastWords } from "./events.js"
import { ABSENT, age, compact, date, duration, number, percent, plural } from "./format.js"

const MOST_PROBLEMS = 10

/** Make the head; `update(info, refusal)` shows a run, and why the server refuses to say more of it, if it does. */
export function makeStanding() {
  const head = h("div", { class: "run-head" })
  const problems = h("div", { class: "notice error", role: "alert", hidden: true })
  const reading = h("div", { class: "reading", role: "status", hidden: true })
  const lastWords = makeLastWords()
  let told = ""

  function showProblems(info, refusal) {
    const [title, texts] = problemsOf(info, refusal)
    const text = JSON.stringify([title, texts])
    problems.hidden = texts.length === 0
    if (text === told) return // an alert is read out whenever it changes
    told = text
    const more = texts.length - MOST_PROBLEMS
    put(problems, statusIcon("broken"), h("div", {}, h("b", {}, title),
      h("ul", {}, texts.slice(0, MOST_PROBLEMS).map((one) => h("li", {}, one))),
      more > 0 ? h("p", { class: "muted" }, `and ${plural(more, "more")}`) : null))
  }

  return {
    elements: [head, problems, reading, lastWords.element],
    update(info, refusal) {
      put(head, titleOf(info), h("dl", { class: "facts" }, factsOf(info)))
      showProblems(info, refusal)
      lastWords.update(info)
      reading.hidden = info.share_read >= 1
      renew(reading, info.share_read, () => [`Reading the run: ${percent(info.share_read)}. Until then its end is shown.`,
        bar(info.share_read)])
    },
  }
}

function problemsOf(info, refusal) {
  if (refusal?.status === 404) return ["This run is gone; this is what was known of it", [refusal.message]]
  if (refusal) return ["The server refused", [refusal.message]]
  if (info.status === "broken") return ["This run cannot be read", info.problems.length ? info.problems : [info.reason]]
  return ["Parts of this run cannot be read", info.problems]
}

function titleOf(info) {
  const seed = info.seed === null || info.seed === undefined ? null : `seed ${info.seed}`
  const about = [info.run_id, info.agent, info.env, seed].filter(Boolean)
  return h("div", { class: "run-title" },
    h("h1", {}, h("bdi", {}, info.name), h("span", { class: "muted" }, " / ", h("bdi", {}, info.version))),
    h("span", { class: `status badge ${info.status}`, title: info.reason }, statusIcon(info.status),
      h("b", {}, info.status), info.reason ? h("small", {}, info.reason) : null),
    h("p", { class: "muted about" }, about.map((text, at) => [at ? " · " : null, h("bdi", {}, text)])))
}

function factsOf(info) {
  const share = info.wanted_steps ? Math.min(1, info.total_steps / info.wanted_steps) : null
  const part = share !== null && share < 1 ? share : null
  const wanted = info.wanted_steps ? `of ${compact(info.wanted_steps)}${part === null ? "" : ` · ${percent(part)}`}` : null
  const at = info.best_step === null ? null : `step ${compact(info.best_step)}`
  return [
    fact("Steps", compact(info.total_steps), wanted, `${number(info.total_steps)} steps`, part),
    fact("Best evaluation", number(info.best_value), at, number(info.best_value, 7)),
    fact("Last 100 episodes", number(info.last_mean), "mean reward", number(info.last_mean, 7)),
    fact("Episodes", compact(info.total_episodes), null, number(info.total_episodes)),
    fact("Speed", compact(info.steps_per_s), "steps/s", number(info.steps_per_s)),
    info.status === "live" ? timeLeft(info, part) : timeTaken(info),
    fact("Updated", age(info.last_updated), null, date(info.last_updated)),
  ]
}

function timeLeft(info, share) {
  const left = share === null || !info.steps_per_s ? null : (info.wanted_steps - info.total_steps) / info.steps_per_s
  return fact("Time left", left === null ? ABSENT : duration(left), "at this speed", null)
}

function timeTaken(info) {
  const took = info.started_at && info.last_updated ? duration(info.last_updated - info.started_at) : ABSENT
  return fact("Took", took, plural(info.attempts.length, "attempt"), `Began ${date(info.started_at)}`)
}

function fact(name, value, more, title, share = null) {
  return h("div", { class: `fact ${name.toLowerCase().split(" ")[0]}`, title },
    h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, ` ${more}`) : null), share === null ? null : bar(share))
}

const bar = (share) => h("span", { class: "bar", "aria-hidden": "true" }, h("i", { style: { width: `${share * 100}%` } }))
