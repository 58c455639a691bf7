/**
 * The address is the view: `#/`, `#/run/<id>?x=time&from=...`, `#/compare?ids=...`. Whatever a person sets is in it,
 * so that a copied link shows the same, and the Back button undoes a zoom.
 */

/** What the address asks for: `{view: "runs" | "run" | "compare", id, query}`. */
export function route() {
  const hash = location.hash.replace(/^#\/?/, "")
  const cut = hash.indexOf("?")
  const path = (cut < 0 ? hash : hash.slice(0, cut)).split("/")
  const query = Object.fromEntries(new URLSearchParams(cut < 0 ? "" : hash.slice(cut + 1)))
  if (path[0] === "run" && path[1]) return { view: "run", id: path[1], query }
  return { view: path[0] === "compare" ? "compare" : "runs", id: null, query }
}

/** What the address says behind its question mark. */
export function query() {
  return route().query
}

/** The address of a view, for links. Values that are null, undefined or "" are left out. */
export function link(view, id = null, query = {}) {
  const params = new URLSearchParams()
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") params.set(key, String(value))
  }
  const path = view === "runs" ? "" : id === null ? view : `${view}/${id}`
  // Commas and colons may stand in a fragment as they are: such a link is easier to read.
  const text = params.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/")
  return `#/${path}${text ? `?${text}` : ""}`
}

/** Show another view. */
export function go(view, id = null, query = {}) {
  location.hash = link(view, id, query)
}

/**
 * Change parts of the query of the view that is shown; null removes one. The view is not told: it made the change.
 * `push` makes it a step that the Back button undoes.
 */
export function setQuery(changes, { push = false } = {}) {
  const now = route()
  const address = link(now.view, now.id, { ...now.query, ...changes })
  if (address === location.hash) return
  history[push ? "pushState" : "replaceState"](null, "", address)
}

/** Change the whole query of the view that is shown, as `setQuery` does with parts of it. */
export function replaceQuery(query, { push = false } = {}) {
  const now = route()
  const address = link(now.view, now.id, query)
  if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address)
}

/** Call back with the route whenever the address changes by a link, by typing, or by Back and Forward. */
export function onRoute(callback) {
  let last = null
  const changed = () => {
    if (location.hash === last) return
    last = location.hash
    callback(route())
  }
  window.addEventListener("hashchange", changed)
  window.addEventListener("popstate", () => { last = null; changed() })
  changed()
}
