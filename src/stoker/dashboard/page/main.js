/** The frame: bar on top, the view that the address names, keys, and whether the server is still there. */

import { isReport } from "./api.js"
import { h, put, renew, svg } from "./dom.js"
import { date } from "./format.js"
import { bindKeys, showKeys } from "./keys.js"
import { go, link, onRoute, route } from "./router.js"
import { toggleTheme } from "./theme.js"

const VIEWS = {
  runs: () => import("./runs.js"),
  run: () => import("./run.js"),
  compare: () => import("./compare.js"),
}

const icon = document.querySelector("link[rel~=icon]")
const place = document.querySelector("#view")
const crumbs = h("nav", { class: "crumbs", "aria-label": "Where you are" })
const connection = h("span", { class: "connection", role: "status" })
const banner = h("div", { class: "lost-banner", role: "alert", hidden: true })
let shown = null
let list = { hash: "#/", top: 0 }
let lostAt = null

put(
  document.querySelector(".top"),
  h("button", { class: "skip", onclick: () => place.focus() }, "Skip to the content"),
  h("a", { class: "home", href: "#/", "aria-label": "stoker: all runs" }, h("img", { src: icon.href, alt: "" }), "stoker"),
  crumbs,
  connection,
  barButton("Light or dark", "t", toggleTheme, halfMoon()),
  barButton("Keys", "?", showKeys, "?"),
)
document.querySelector(".top").after(banner)

function barButton(name, key, onclick, content) {
  return h("button", { class: "quiet", title: `${name} (${key})`, "aria-label": name, onclick }, content)
}

function halfMoon() {
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("circle", { cx: 8, cy: 8, r: 6, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
    svg("path", { d: "M8 2a6 6 0 0 1 0 12Z", fill: "currentColor" }))
}

function reportName() {
  const made = globalThis.STOKER_REPORT?.made_at
  return made === undefined ? "Report" : `Report of ${typeof made === "number" ? date(made).slice(0, 16) : made}`
}

/** What views may set of the frame. */
const frame = {
  /** Where the view stands: `[[text, address | null], ...]`, and the title of the window, with `before` in front. */
  setCrumbs(steps, before = "") {
    renew(crumbs, steps, () => steps.map(([text, address], at) => [
      h("span", { class: "slash", "aria-hidden": "true" }, "/"),
      address === null ? h("span", { class: at === steps.length - 1 ? "here" : "", title: text }, text)
        : h("a", { href: address, title: text }, text),
    ]))
    document.title = steps.length ? `${before}${steps.map(([text]) => text).join(" / ")} · stoker` : "stoker"
  },
  /** The list of runs as it was left. */
  back() { location.hash = list.hash },
  /** "live", "polling", "lost", "refused" (with the answer's problem), "report" or null. */
  setConnection(state, problem = null) {
    const told = {
      live: ["live", "Live", "Changes arrive as they happen"],
      polling: ["stalled", "Polling", "Changes are asked for every 2 s"],
      refused: ["crashed", "Refused", problem?.message],
      lost: ["crashed", "Connection lost", "The server does not answer"],
      report: ["ended", reportName(), "This page carries its data with it"],
    }[state]
    put(connection, told
      ? [h("span", { class: `dot ${told[0]}`, "aria-hidden": "true" }), h("span", { class: "word" }, told[1])] : null)
    connection.title = told?.[2] ?? ""
    if (state === "lost" && lostAt === null) {
      lostAt = new Date()
      put(banner, `Connection lost at ${lostAt.toLocaleTimeString()}: this is what was known then. Trying again.`)
    }
    if (state === "refused") put(banner, problem.message)
    if (state !== "lost") lostAt = null
    banner.hidden = state !== "lost" && state !== "refused"
  },
}

/** The frame as long as `isOn()`: a view that is no longer shown must not change it. */
function frameWhile(isOn) {
  const quiet = (call) => (...given) => { if (isOn()) call(...given) }
  return Object.fromEntries(Object.entries(frame).map(([name, call]) => [name, quiet(call)]))
}

/** A problem in place of a view. */
function showProblem(problem) {
  put(place, h("div", { class: "empty", role: "alert" },
    h("h1", {}, problem.status === 404 ? "Not found" : problem.status === 0 ? "No connection" : "This went wrong"),
    h("p", {}, problem.message),
    h("p", {}, h("a", { class: "text-link", href: "#/" }, "All runs"))))
}

let turn = 0

/** Show what the address names; the same view of the same thing only takes up its new query. */
async function show({ view, id, query }) {
  const name = `${view}/${id ?? ""}`
  if (shown?.name === name && shown.view?.setQuery) {
    shown.view.setQuery(query)
    return
  }
  if (shown?.view?.address) list = { hash: shown.view.address(), top: scrollY }
  const mine = ++turn
  const before = shown
  shown = { name, view: null }
  before?.view?.destroy()
  document.documentElement.dataset.view = view
  // A view that is overtaken while it waits for its data draws into an element that nobody sees.
  const own = h("div", { class: "view" })
  put(place, own)
  scrollTo(0, 0)
  try {
    const module = await VIEWS[view]()
    if (mine !== turn) return
    const ownFrame = frameWhile(() => mine === turn)
    const made = await (view === "run" ? module.show(own, id, query, ownFrame) : module.show(own, query, ownFrame))
    if (mine !== turn) {
      made.destroy()
      return
    }
    shown.view = made
    if (location.hash === list.hash) scrollTo(0, list.top)
  } catch (problem) {
    if (problem.name === "AbortError" || mine !== turn) return
    frame.setCrumbs([])
    showProblem(problem)
    if (problem.status === undefined) throw problem
  }
}

bindKeys([
  ["t", "Light or dark", toggleTheme],
  ["?", "These keys", showKeys],
  ["g", "All runs", () => go("runs")],
], "Everywhere")

history.scrollRestoration = "manual"
if (isReport()) {
  frame.setConnection("report")
  banner.after(h("p", { class: "report-note" }, globalThis.STOKER_REPORT.note))
}
if (!location.hash) history.replaceState(null, "", link("runs"))
onRoute(() => show(route()))
