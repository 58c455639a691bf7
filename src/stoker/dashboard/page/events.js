/** What happened to a run: all of it, page by page, and the last words of its newest attempt. */

import { get } from "./api.js"
import { h, put, renew, say } from "./dom.js"
import { date, duration, number, plural } from "./format.js"
import { link, setQuery } from "./router.js"

const SIZE = 100
const IN_TROUBLE = new Set(["crashed", "stalled"])
const WORDS = "warning" // the level, and the choice, of warnings and errors

/** Events, the newest first. */
export function makeEvents(element, first) {
  let info = first
  let page = 0
  let chosen = ""
  let isOver = false
  const kinds = new Set()
  const pick = h("select", { class: "field", "aria-label": "Kind", onchange: () => choose(pick.value) })
  const count = h("span", { class: "muted", role: "status" })
  const list = h("ol", { class: "panel events" })
  const before = h("button", { onclick: () => turn(page - 1) }, "Previous")
  const after = h("button", { onclick: () => turn(page + 1) }, "Next")
  const pager = h("div", { class: "toolbar pager" }, before, after)
  put(element, h("div", { class: "toolbar run-bar" }, pick, h("span", { class: "grow" }), count), list, pager)

  function turn(next) {
    page = next
    ask()
  }

  function choose(next) {
    chosen = next
    setQuery({ level: chosen === WORDS ? WORDS : null })
    turn(0)
  }

  async function ask() {
    const params = chosen === WORDS ? { level: WORDS } : { kind: chosen }
    try {
      const answer = await get(`api/runs/${info.id}/events`, { page, ...params })
      if (!isOver) draw(answer)
    } catch (problem) {
      if (problem.status === undefined) throw problem
      if (problem.status !== 0) renew(list, problem.message, () => h("li", { class: "table-empty" }, problem.message))
    }
  }

  function draw({ n, rows: events }) {
    for (const event of events) kinds.add(event.kind)
    const options = [["", "All events"], [WORDS, "Warnings and errors"], ...[...kinds].sort().map((one) => [one, one.replaceAll("_", " ")])]
    renew(pick, options, () => options.map(([value, text]) => h("option", { value }, text)))
    pick.value = chosen
    say(count, plural(n, "event"))
    renew(list, events, () => (events.length ? events.map((event) => lineOf(event, info)) : h("li", { class: "table-empty" }, "Nothing is recorded.")))
    before.disabled = page <= 0
    after.disabled = (page + 1) * SIZE >= n
    pager.hidden = n <= SIZE
  }

  return {
    take(query) {
      if (query.level === WORDS) chosen = WORDS
      turn(0)
    },
    update(next) {
      info = next
      if (page === 0) ask()
    },
    destroy() { isOver = true },
  }
}

/** The last warnings and errors of the newest attempt; the traceback of a crash is open. `update(info)` shows those of a run. */
export function makeLastWords() {
  const element = h("section", { class: "panel last-words", "aria-label": "Last warnings and errors", hidden: true })
  return {
    element,
    update(info) {
      const { id, status } = info
      const events = IN_TROUBLE.has(status) ? info.last_words : info.last_words.slice(-2) // curves come first otherwise
      element.hidden = events.length === 0
      renew(element, [events, id, status], () => [
        h("h2", { class: "block-title" }, "Last warnings and errors",
          h("a", { class: "text-link", href: link("run", id, { tab: "events", level: WORDS }) }, "All")),
        h("ol", { class: "events" }, events.map((event, at) => lineOf(event, info, status === "crashed" && at === events.length - 1)))])
    },
  }
}

/** Where it happened stands at the end of a traceback. */
function tracebackOf(text, isOpen) {
  const lines = h("pre", { class: "mono", tabindex: 0 }, text)
  const toEnd = () => { lines.scrollTop = lines.scrollHeight }
  return h("details", { class: "traceback", open: isOpen, ontoggle: toEnd }, h("summary", {}, "Traceback"), lines)
}

function lineOf(event, info, isOpen = false) {
  const when = info.started_at ? `+${duration(event.time - info.started_at)}` : date(event.time)
  const { traceback } = event.details
  return h("li", { class: `event ${event.level}` },
    h("span", { class: "event-mark", role: "img", "aria-label": event.level }),
    h("time", { title: date(event.time) }, when),
    h("span", { class: "event-step" }, `step ${number(event.total_steps)}`),
    h("div", { class: "event-text", title: event.kind.replaceAll("_", " ") }, event.sentence,
      traceback ? tracebackOf(traceback, isOpen) : null))
}
