/**
 * What the server says: JSON with ETag memory, errors that name the way out, and news by server-sent events with
 * polling as the fall-back. A report carries its answers with it: `STOKER_REPORT.answer(path, params)` gives them.
 */

const REMEMBERED = 64
const POLL_S = 2
const answers = new Map()

/** An answer other than what was asked for; `status` is 0 if the server could not be reached. */
export class ApiError extends Error {
  constructor(status, title, detail) {
    super(detail || title)
    this.name = "ApiError"
    this.status = status
    this.title = title
  }
}

/** Whether this page is a file with its data in it. */
export const isReport = () => globalThis.STOKER_REPORT !== undefined

/** The address of an answer, relative to the page: `address("api/runs/1/series", {name: ["a", "b"], x: "time"})`. */
export function address(path, params = {}) {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(params)) {
    if (value === null || value === undefined || value === "") continue
    for (const one of Array.isArray(value) ? value : [value]) query.append(key, String(one))
  }
  const text = query.toString()
  return text ? `${path}?${text}` : path
}

/**
 * Get one answer. What did not change is not sent again, and is then the same object as before.
 *
 * Throws ApiError, or the signal's AbortError.
 */
export async function get(path, params = {}, { signal } = {}) {
  if (isReport()) return fromReport(path, params)
  const url = address(path, params)
  const before = answers.get(url)
  let response
  try {
    response = await fetch(url, { signal, cache: "no-store", headers: before ? { "If-None-Match": before.etag } : {} })
  } catch (problem) {
    if (problem.name === "AbortError") throw problem
    throw new ApiError(0, "no connection", "The server does not answer. Is `stoker dash` still running?")
  }
  if (response.status === 304 && before) return before.value
  if (!response.ok) throw await refusal(response)
  const value = await response.json()
  const etag = response.headers.get("ETag")
  if (etag && !params.cursor) remember(url, { etag, value })
  return value
}

function remember(url, answer) {
  answers.delete(url)
  answers.set(url, answer)
  if (answers.size > REMEMBERED) answers.delete(answers.keys().next().value)
}

async function refusal(response) {
  const text = await response.text()
  let told = {}
  try {
    told = JSON.parse(text)
  } catch (problem) {
    if (!(problem instanceof SyntaxError)) throw problem // an answer of a proxy in between is no JSON
  }
  return new ApiError(response.status, told.title ?? response.statusText, told.detail ?? text.slice(0, 300))
}

function fromReport(path, params) {
  try {
    return globalThis.STOKER_REPORT.answer(path, params)
  } catch (problem) {
    if (problem.status === undefined) throw problem
    throw new ApiError(problem.status, problem.title, problem.detail)
  }
}

/**
 * Tell about changes until the returned function is called.
 *
 * `on.runs()` when the list changed, `on.run({id, cursor, status, ...})` when the run changed, `on.state(state)` with
 * "live" (events arrive), "polling" (they do not, the server answers), "lost" (it does not answer), "refused" (it wants
 * something else first; with the problem) or "report".
 * A page in the background listens to nothing, and asks once when it is looked at again.
 */
export function listen(run, on) {
  if (isReport()) {
    on.state?.("report")
    return () => {}
  }
  let source = null
  let timer = null
  let isOver = false
  let state = null
  let isFirst = true
  let polled = null

  const become = (next, problem = null) => {
    if (next !== state) on.state?.(next, problem)
    state = next
  }
  const news = () => { on.runs?.(); if (run) on.run?.({ id: run, cursor: null }) }

  const open = () => {
    if (isOver || source || document.hidden) return
    source = new EventSource(address("api/stream", { run }))
    source.addEventListener("open", () => {
      clearTimeout(timer)
      timer = null
      if (!isFirst) news() // what happened in the meantime was told to nobody
      isFirst = false
      become("live")
    })
    source.addEventListener("runs", () => on.runs?.())
    source.addEventListener("run", (event) => on.run?.(JSON.parse(event.data)))
    source.addEventListener("error", () => {
      // The browser tries again where it may; polling bridges the time until it succeeds.
      if (source.readyState === EventSource.CLOSED) shut()
      if (timer === null) timer = setTimeout(poll, 0)
    })
  }
  const shut = () => {
    source?.close()
    source = null
  }
  const poll = async () => {
    if (isOver || document.hidden) { timer = null; return }
    try {
      const answer = await get(run ? `api/runs/${run}` : "api/runs")
      if (isOver) return
      if (source?.readyState !== EventSource.OPEN) {
        become("polling")
        if (answer !== polled) news()
        polled = answer
      }
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem
      if (!isOver) become(problem.status === 0 || problem.status >= 500 ? "lost" : "refused", problem)
    }
    timer = null
    if (isOver || source?.readyState === EventSource.OPEN) return
    open()
    timer = setTimeout(poll, POLL_S * 1000)
  }
  const seen = () => {
    if (document.hidden) {
      shut()
      clearTimeout(timer)
      timer = null
    } else open()
  }
  document.addEventListener("visibilitychange", seen)
  open()
  return () => {
    isOver = true
    document.removeEventListener("visibilitychange", seen)
    clearTimeout(timer)
    shut()
  }
}
