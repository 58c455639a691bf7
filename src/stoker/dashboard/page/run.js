/** One run: how it stands, its charts, and behind tabs its episodes, events, config and files. */

import { get, listen } from "./api.js"
import { makeCharts } from "./charts.js"
import { h, put, statusIcon } from "./dom.js"
import { fileName } from "./download.js"
import { makeEpisodes } from "./episodes.js"
import { ABSENT, age, compact, date, duration, number, percent, plural } from "./format.js"
import { bindKeys } from "./keys.js"
import { makeConfig, makeEvents, makeFiles } from "./particulars.js"
import { link, setQuery } from "./router.js"

const TABS = [["charts", "Charts"], ["episodes", "Episodes"], ["events", "Events"], ["config", "Config"], ["files", "Files"]]
const OFTEN_S = 2
const OFTEN_WHILE_READING_S = 0.5

/** Show a run; returns what the frame calls when the address changes and when another view comes. */
export async function show(element, id, query, frame) {
  const abort = new AbortController()
  let info = await get(`api/runs/${id}`, {}, { signal: abort.signal })
  const file = (name) => fileName([info.name, info.version, info.run_id, name], "").slice(0, -1)
  let tab = null
  let content = null
  let endContentKeys = () => {}
  let waiting = null
  let isOver = false

  const head = h("div", { class: "run-head" })
  const problems = h("div", { class: "notice error", role: "alert", hidden: true })
  const reading = h("div", { class: "reading", role: "status", hidden: true })
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "What to show" },
    TABS.map(([name, text]) => h("button", { role: "tab", id: `tab-${name}`, "aria-controls": "tab-content", "aria-selected": "false", onclick: () => open(name) }, text)))
  const place = h("div", { id: "tab-content", role: "tabpanel" })
  tabs.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return
    const at = TABS.findIndex(([name]) => name === tab)
    open(TABS[(at + (event.key === "ArrowLeft" ? TABS.length - 1 : 1)) % TABS.length][0])
    tabs.querySelector("[aria-selected=true]").focus()
    event.preventDefault()
    event.stopPropagation()
  })
  put(element, head, problems, reading, tabs, place)

  function tell() {
    const done = info.status === "live" && info.wanted_steps ? `${percent(info.total_steps / info.wanted_steps)} · ` : ""
    frame.setCrumbs([[info.name, link("runs", null, { q: info.name })], [info.version, link("runs", null, { q: `${info.name}/${info.version}` })], [info.run_id, null]], done)
    const share = info.wanted_steps ? Math.min(1, info.total_steps / info.wanted_steps) : null
    const left = info.status === "live" && share !== null && share < 1 && info.steps_per_s ? (info.wanted_steps - info.total_steps) / info.steps_per_s : null
    const about = [info.agent, info.env, info.seed === null || info.seed === undefined ? null : `seed ${info.seed}`]
    put(head,
      h("div", { class: "run-title" },
        h("h1", {}, h("bdi", {}, info.name), h("span", { class: "muted" }, " / ", h("bdi", {}, info.version))),
        h("span", { class: `status badge ${info.status}`, title: info.reason }, statusIcon(info.status), h("b", {}, info.status), info.reason ? h("small", {}, info.reason) : null),
        h("p", { class: "muted about" }, [info.run_id, ...about].filter(Boolean).map((text, at) => [at ? " · " : null, h("bdi", {}, text)]))),
      h("dl", { class: "facts" },
        fact("Steps", compact(info.total_steps), info.wanted_steps ? `of ${compact(info.wanted_steps)}${share < 1 ? ` · ${percent(share)}` : ""}` : null, `${number(info.total_steps)} steps`, share !== null && share < 1 ? share : null),
        fact("Best evaluation", number(info.best_value), info.best_step === null ? null : `step ${compact(info.best_step)}`, number(info.best_value, 7)),
        fact("Last 100 episodes", number(info.last_mean), "mean reward", number(info.last_mean, 7)),
        fact("Episodes", compact(info.total_episodes), null, number(info.total_episodes)),
        fact("Speed", compact(info.steps_per_s), "steps/s", number(info.steps_per_s)),
        info.status === "live" ? fact("Time left", left === null ? ABSENT : duration(left), "at this speed", null)
          : fact("Took", info.started_at && info.last_updated ? duration(info.last_updated - info.started_at) : ABSENT, plural(info.attempts.length, "attempt"), `Began ${date(info.started_at)}`),
        fact("Updated", age(info.last_updated), null, date(info.last_updated))))
    problems.hidden = info.problems.length === 0 && info.status !== "broken"
    const told = info.problems.length ? info.problems : [info.reason]
    put(problems, statusIcon("broken"), h("div", {}, h("b", {}, info.status === "broken" ? "This run cannot be read" : "Parts of this run cannot be read"),
      h("ul", {}, told.slice(0, 10).map((text) => h("li", {}, text))), told.length > 10 ? h("p", { class: "muted" }, `and ${plural(told.length - 10, "more")}`) : null))
    reading.hidden = info.share_read >= 1
    put(reading, `Reading the run: ${percent(info.share_read)}. Until then its newest part is shown.`, h("span", { class: "bar" }, h("i", { style: { width: `${info.share_read * 100}%` } })))
  }

  /** The run is gone, or the server wants another login: what was known stays. */
  function tellRefusal(problem) {
    problems.hidden = false
    put(problems, statusIcon("broken"), h("div", {}, h("b", {}, problem.status === 404 ? "This run is gone; this is what was known of it" : "The server refused"), h("p", {}, problem.message)))
  }

  function fact(name, value, more, title, share = null) {
    return h("div", { class: `fact ${name.toLowerCase().split(" ")[0]}`, title }, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, ` ${more}`) : null),
      share === null ? null : h("span", { class: "bar", "aria-hidden": "true" }, h("i", { style: { width: `${share * 100}%` } })))
  }

  function open(name, next = null) {
    if (name !== tab) {
      content?.destroy()
      endContentKeys()
      tab = name
      for (const button of tabs.children) {
        const isOn = button.id === `tab-${name}`
        button.setAttribute("aria-selected", String(isOn))
        button.tabIndex = isOn ? 0 : -1
      }
      place.setAttribute("aria-labelledby", `tab-${name}`)
      put(place)
      if (next === null) setQuery({ tab: name === "charts" ? null : name })
      content = { charts: makeCharts, episodes: makeEpisodes, events: makeEvents, config: makeConfig, files: makeFiles }[name](place, info, file)
      endContentKeys = content.keys ? bindKeys(content.keys, "This tab") : () => {}
    }
    content.take?.(next ?? Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")))
  }

  /** Ask again, but not more often than every two seconds: five viewers must not slow a training down. */
  function refresh() {
    waiting ??= setTimeout(async () => {
      waiting = null
      try {
        const next = await get(`api/runs/${id}`, {}, { signal: abort.signal })
        if (isOver) return
        const isNews = next.cursor !== info.cursor || next.share_read !== info.share_read
        info = next
        tell()
        if (isNews) content.update?.(info)
        if (info.share_read < 1) refresh()
      } catch (problem) {
        if (problem.name === "AbortError") return
        if (problem.status === undefined) throw problem
        if (problem.status !== 0) tellRefusal(problem)
      }
    }, (info.share_read < 1 ? OFTEN_WHILE_READING_S : OFTEN_S) * 1000)
  }

  tell()
  const openFrom = (next) => open(TABS.some(([name]) => name === next.tab) ? next.tab : "charts", next)
  openFrom(query)
  const endKeys = bindKeys([
    ...TABS.map(([name, text], at) => [String(at + 1), text, () => open(name)]),
    ["Escape", "Back to the list", () => frame.back()],
  ], "Run")
  const endNews = listen(id, { run: refresh, state: frame.setConnection })
  const ages = setInterval(tell, 10_000)
  if (info.share_read < 1) refresh()
  return {
    setQuery: openFrom,
    update: refresh,
    destroy() {
      isOver = true
      abort.abort()
      clearTimeout(waiting)
      clearInterval(ages)
      endKeys()
      endContentKeys()
      endNews()
      content?.destroy()
    },
  }
}
