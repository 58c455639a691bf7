// What sweeping.py asks of a page, as it is shown.
({
  lowContrast() {
    const parse = (text) => {
      const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number)
      return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a]
    }
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1]
    const luminance = (color) => {
      const [r, g, b] = color.map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
      return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = (element) => {
      const layers = []
      for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor))
      return layers.reverse().reduce((below, layer) => over(layer, below), matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0, 1] : [255, 255, 255, 1])
    }
    const isShown = (element) => {
      const box = element.getBoundingClientRect()
      return box.width > 1 && box.height > 1 && getComputedStyle(element).visibility !== "hidden"
    }
    const faults = new Set()
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement
      if (!node.data.trim() || !isShown(element) || element.closest("[disabled], [aria-hidden=true], script, style, option")) continue
      const style = getComputedStyle(element)
      let alpha = 1
      for (let at = element; at; at = at.parentElement) alpha *= Number(getComputedStyle(at).opacity)
      if (alpha === 0) continue
      const below = behind(element)
      const [r, g, b, a] = parse(style.color)
      const [light, dark] = [luminance(over([r, g, b, a * alpha], below)), luminance(below)].sort((x, y) => y - x)
      const ratio = (light + 0.05) / (dark + 0.05)
      const size = parseFloat(style.fontSize)
      const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
      if (ratio < (isLarge ? 3 : 4.5)) {
        faults.add(`${ratio.toFixed(2)} ${element.tagName.toLowerCase()}.${element.className}: ${node.data.trim().slice(0, 30)}`)
      }
    }
    return [...faults]
  },

  nameless() {
    const faults = []
    const isShown = (element) => element.getClientRects().length > 0
    const labelled = (element) => (element.getAttribute("aria-labelledby") ?? "").split(/\s+/).filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent ?? "").join(" ")
    const nameOf = (element) => element.getAttribute("aria-label") || labelled(element) || [...(element.labels ?? [])].map((label) => label.textContent).join(" ")
      || (element.matches("input, select, textarea") ? "" : element.textContent) || element.getAttribute("alt") || element.querySelector("img[alt]")?.alt || element.title
    const operable = "a[href], button, input, select, textarea, summary, [tabindex], [role=button], [role=slider], [role=tab], dialog"
    for (const element of document.querySelectorAll(operable)) {
      if (!isShown(element) || element.tabIndex < 0 && !element.matches("[role=tab]")) continue
      if (!nameOf(element)?.trim()) faults.push(`no name: ${element.outerHTML.slice(0, 120)}`)
    }
    for (const element of document.querySelectorAll("a[href][role]:not([role=link]), button[role=cell]")) {
      faults.push(`its role hides that it is a link: ${element.outerHTML.slice(0, 80)}`)
    }
    for (const image of document.querySelectorAll("img:not([alt]), svg:not([aria-hidden]):not([role]):not([aria-label])")) {
      if (isShown(image)) faults.push(`no text: ${image.outerHTML.slice(0, 120)}`)
    }
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id)
    for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) faults.push(`id twice: ${id}`)
    for (const element of document.querySelectorAll("[aria-controls], [aria-labelledby], [aria-describedby]")) {
      for (const name of ["aria-controls", "aria-labelledby", "aria-describedby"]) {
        for (const id of (element.getAttribute(name) ?? "").split(/\s+/).filter(Boolean)) {
          if (!document.getElementById(id)) faults.push(`${name} leads nowhere: ${id}`)
        }
      }
    }
    if (!document.documentElement.lang) faults.push("the page has no language")
    if (document.querySelectorAll("h1").length !== 1) faults.push(`${document.querySelectorAll("h1").length} headings h1`)
    if (!document.querySelector("main")) faults.push("no main")
    return faults
  },

  overflowing() {
    const faults = []
    const width = document.documentElement.clientWidth
    if (document.documentElement.scrollWidth > width) {
      for (const element of document.body.querySelectorAll("*")) {
        const box = element.getBoundingClientRect()
        if (box.width && box.right > width + 1) faults.push(`${element.tagName.toLowerCase()}.${element.className} ends at ${Math.round(box.right)} of ${width}`)
      }
    }
    return faults.slice(0, 10)
  },

  markup() {
    const faults = []
    const foreign = "script:not([src]), iframe, object, embed, base, form, template, plaintext, marquee, math, video, audio, textarea, [style*=url]"
    for (const element of document.querySelectorAll(foreign)) faults.push(element.outerHTML.slice(0, 100))
    for (const element of document.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        if (/^on/i.test(name)) faults.push(`${name}=${value.slice(0, 50)}`)
        if (/^(href|src|srcset|xlink:href|action)$/.test(name) && /evil|javascript:|vbscript:|data:text/i.test(value.split("?")[0])) faults.push(`${name}=${value.slice(0, 80)}`)
      }
    }
    for (const element of document.querySelectorAll("link, meta, img")) {
      if (/evil|refresh/.test(element.outerHTML)) faults.push(element.outerHTML.slice(0, 100))
    }
    return faults
  },

  focus() {
    const element = document.activeElement
    if (!element || element === document.body) return null
    const box = element.getBoundingClientRect()
    const isOutlined = ({ outlineStyle, outlineWidth, boxShadow }) => (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none"
    const isMarked = [element, element.closest(".row")].some((one) => one && isOutlined(getComputedStyle(one)))
    const view = element.closest("header, main")?.tagName ?? "BODY"
    let isClipped = false
    for (let at = element; at; at = at.parentElement) {
      const clip = getComputedStyle(at).clipPath
      isClipped ||= clip === "inset(50%)" || (getComputedStyle(at).overflow === "hidden" && at.clientWidth <= 1)
    }
    return { text: (element.getAttribute("aria-label") || element.textContent || element.tagName).trim().slice(0, 40), top: box.top + scrollY, left: box.left, isMarked, view, isShown: box.width > 1 && box.height > 1 && !isClipped, key: element.outerHTML.slice(0, 200) }
  },
})
