/** One run: how it stands, its charts, and behind tabs its episodes, events, config and files. */

import { makeActors } from "./actors.js"
import { get, isReport, listen } from "./api.js"
import { makeCharts } from "./charts.js"
import { h, put } from "./dom.js"
import { fileName } from "./download.js"
import { makeEpisodes } from "./episodes.js"
import { makeEvents } from "./events.js"
import { percent } from "./format.js"
import { bindKeys } from "./keys.js"
import { makeConfig, makeFiles } from "./particulars.js"
import { link, query as addressQuery, setQuery } from "./router.js"
import { makeStanding } from "./standing.js"

const TABS = [
  ["charts", "Charts", makeCharts], ["episodes", "Episodes", makeEpisodes], ["events", "Events", makeEvents],
  ["config", "Config", makeConfig], ["files", "Files", makeFiles], ["actors", "Actors", makeActors],
].filter(([name]) => name !== "actors" || !isReport()) // a report holds curves and episodes
const OFTEN_S = 2 // five viewers must not slow a training down
const OFTEN_WHILE_READING_S = 0.5
const AGES_S = 10

/** Show a run; returns what the frame calls when the address changes and when another view comes. */
export async function show(element, id, query, frame) {
  const abort = new AbortController()
  let info = await get(`api/runs/${id}`, {}, { signal: abort.signal })
  let refusal = null
  let tab = null
  let content = null
  let endContentKeys = () => {}
  const file = (name) => fileName([info.name, info.version, info.run_id, name], "").slice(0, -1)

  const standing = makeStanding()
  const place = h("div", { id: "tab-content", role: "tabpanel" })
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "What to show", onkeydown: arrows },
    TABS.map(([name, text]) => h("button", {
      role: "tab", id: `tab-${name}`, "aria-controls": "tab-content", "aria-selected": "false", onclick: () => open(name),
    }, text)))
  put(element, standing.elements, tabs, place)

  function tell() {
    const group = `${info.name}/${info.version}`
    const isOnItsWay = info.status === "live" && info.wanted_steps
    frame.setCrumbs([
      [info.name, link("runs", null, { q: info.name })], [info.version, link("runs", null, { q: group })], [info.run_id, null],
    ], isOnItsWay ? `${percent(info.total_steps / info.wanted_steps)} · ` : "")
    standing.update(info, refusal)
  }

  function arrows(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return
    const at = TABS.findIndex(([name]) => name === tab) + (event.key === "ArrowLeft" ? TABS.length - 1 : 1)
    open(TABS[at % TABS.length][0])
    tabs.querySelector("[aria-selected=true]").focus()
    event.preventDefault()
    event.stopPropagation()
  }

  /** Show a tab, as the address says or, if a person asked for it, as it says then. */
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
      const [, , make] = TABS.find(([one]) => one === name)
      content = make(place, info, file)
      endContentKeys = content.keys ? bindKeys(content.keys, "This tab") : () => {}
    }
    content.take?.(next ?? addressQuery())
  }

  const openFrom = (next) => open(TABS.some(([name]) => name === next.tab) ? next.tab : "charts", next)

  let waiting = null
  /** Ask again, but not too often. */
  function refresh() {
    waiting ??= setTimeout(async () => {
      waiting = null
      try {
        const next = await get(`api/runs/${id}`, {}, { signal: abort.signal })
        const isNews = next.cursor !== info.cursor || next.share_read !== info.share_read
        info = next
        refusal = null
        tell()
        if (isNews) content.update?.(info)
        if (info.share_read < 1) refresh()
      } catch (problem) {
        if (problem.name === "AbortError") return
        if (problem.status === undefined) throw problem
        if (problem.status !== 0) refusal = problem // the frame tells of a lost connection
        tell()
      }
    }, (info.share_read < 1 ? OFTEN_WHILE_READING_S : OFTEN_S) * 1000)
  }

  tell()
  openFrom(query)
  const endKeys = bindKeys([
    ...TABS.map(([name, text], at) => [String(at + 1), text, () => open(name)]),
    ["Escape", "Back to the list", () => frame.back()],
  ], "Run")
  const endNews = listen(id, { run: refresh, state: frame.setConnection })
  const ages = setInterval(tell, AGES_S * 1000)
  if (info.share_read < 1) refresh()
  return {
    setQuery: openFrom,
    destroy() {
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
