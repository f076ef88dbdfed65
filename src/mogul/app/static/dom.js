// Elements made from names, attributes and children; text is text, never markup.

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value; // as an attribute the page's policy forbids it
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((c) => c != null));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((c) => c != null));
  return made;
}

// Shows that something is awaited, then what it made, or why it could not be made.
export async function filled(place, work, what = "Loading …") {
  const waiting = el("div", { class: "wait", role: "status" }, what);
  const timer = setTimeout(() => { if (!place.childElementCount) place.append(waiting); }, 150);
  place.setAttribute("aria-busy", "true");
  try {
    place.replaceChildren(...[await work()].flat().filter((c) => c != null));
  } catch (error) {
    place.replaceChildren(told(error));
  } finally {
    clearTimeout(timer);
    place.removeAttribute("aria-busy");
  }
}

export function told(error) {
  return el("p", { class: "error", role: "alert" }, error.message);
}

export function slider(name, { min, max, step, value, show }, changed) {
  const shown = el("output", {}, show(value));
  const input = el("input", { type: "range", min, max, step, value, "aria-label": name });
  input.addEventListener("input", () => { shown.textContent = show(+input.value); changed(+input.value); });
  const label = el("label", {}, el("span", {}, name), input, shown);
  label.set = (v) => { input.value = v; shown.textContent = show(v); };
  return label;
}

export function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
}
