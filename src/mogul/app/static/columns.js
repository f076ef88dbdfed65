// Parts that the views of tables share: columns with sliders, rows by number, bars.

import { get, newest } from "./api.js";
import { el, told } from "./dom.js";
import { count, exact, percent, rounded } from "./numbers.js";

const MANY = 12; // columns from which a list has a search field

// Text into a field, which becomes as wide as it needs.
export function write(field, text) {
  field.value = text;
  widen(field);
  field.setAttribute("aria-invalid", "false");
}

export function widen(field) {
  field.style.width = `calc(${field.value.length}ch + 1.4rem)`;
}

// What was typed as a number; null where a field is empty, and an error where it is none.
export function typed(field, name) {
  const text = field.value.trim(), value = Number(text);
  const wrong = text !== "" && !Number.isFinite(value);
  field.setAttribute("aria-invalid", String(wrong));
  if (wrong) throw new Error(`“${text}” is no number; give one for ${name}, such as 1.5.`);
  return text === "" ? null : value;
}

// Calls of `work` whose failures are told in a place, where they stay until one succeeds; nothing
// is then awaited any more in `drawing`.
export function telling(place, work, drawing = null) {
  return async (...given) => {
    try {
      await work(...given);
      place.replaceChildren();
    } catch (error) {
      place.replaceChildren(told(error));
      drawing?.querySelector(".wait")?.remove();
    }
  };
}

// A column's value by slider and by field: `value` is what the field says. `set` moves both without
// telling, and `propose` to a value that is rounded first, but not under the hands of who is typing.
export function knob({ name, low, high, value }, changed) {
  const range = el("input", { type: "range", min: low, max: high, step: (high - low) / 200, value, "aria-label": name });
  const field = el("input", { type: "text", inputmode: "decimal", class: "number", "aria-label": `${name}, exact value`, autocomplete: "off" });
  const made = el("div", { class: "knob" }, range, field);
  made.set = (v) => { made.value = v; range.value = v; write(field, exact(v)); };
  let typing = false;
  made.propose = (v) => { if (!typing) made.set(v == null ? v : rounded(v, high - low)); };
  made.propose(value);
  field.addEventListener("input", () => { typing = true; widen(field); });
  field.addEventListener("blur", () => { typing = false; });
  range.addEventListener("input", () => {
    made.value = rounded(+range.value, high - low);
    write(field, exact(made.value));
    changed(made.value, null);
  });
  field.addEventListener("change", () => {
    typing = false;
    try {
      const v = typed(field, name);
      if (v == null) throw new Error(`${name} has no value; give a number.`);
      made.value = v;
      range.value = v;
      write(field, field.value.trim());
      changed(v, null);
    } catch (error) {
      changed(null, error);
    }
  });
  return made;
}

// A list of entries, one for each name, with a field that leaves only those that hold its text.
export function searchable(names, entries, what = "columns") {
  const list = el("div", { class: names.length > MANY ? "columns long" : "columns" }, ...entries);
  if (names.length <= MANY) return [list];
  const lower = names.map((name) => name.toLowerCase());
  const field = el("input", {
    type: "search", class: "search", placeholder: `Search ${names.length} ${what}`, "aria-label": `Search ${what}`,
    oninput: () => entries.forEach((entry, i) => { entry.hidden = !lower[i].includes(field.value.trim().toLowerCase()); }),
  });
  return [field, list];
}

// A select of columns by number; `none` is the text of an empty choice.
export function choice(label, names, value, changed, none = null) {
  const made = el("select", { "aria-label": label, onchange: () => changed(made.value === "" ? null : +made.value) },
    ...(none ? [el("option", { value: "" }, none)] : []),
    ...names.map((name, i) => el("option", { value: i }, name)));
  made.value = value ?? "";
  const whole = el("label", { class: "choice" }, el("span", {}, label), made);
  whole.set = (v) => { made.value = v ?? ""; };
  return whole;
}

// A choice of a row by set and number. `picked` is told; `go` picks from elsewhere.
export function rowPicker(model, picked, label = "Row number") {
  const sets = Object.entries(model.sets).filter(([key, set]) => key === "train" || set.name !== model.sets.train?.name);
  const problem = el("div");
  if (!sets.length) return { content: el("p", { class: "hint" }, Object.values(model.missing)[0] ?? "There are no rows to choose from."), set: () => null, go: () => {} };
  const which = el("select", { "aria-label": "Rows of" }, ...sets.map(([key, set]) => el("option", { value: key }, key === "train" ? "training rows" : set.name.split("/").pop())));
  const field = el("input", { type: "number", min: 0, step: 1, class: "number", value: "" });
  const size = () => model.sets[which.value].rows;
  const pick = newest(telling(problem, picked));
  function go(row) {
    if (!(Number.isInteger(row) && row >= 0 && row < size())) {
      problem.replaceChildren(told(new Error(`There are rows 0 to ${count(size() - 1)}; give one of these numbers.`)));
      return;
    }
    field.value = row;
    pick(which.value, row);
  }
  const step = (by) => go(field.value === "" ? 0 : Math.max(0, Math.min(size() - 1, +field.value + by)));
  field.addEventListener("change", () => go(field.value === "" ? NaN : +field.value));
  const set = { change: () => {} };
  which.addEventListener("change", () => set.change());
  const content = el("div", {}, el("div", { class: "row" },
    el("label", { class: "choice" }, el("span", {}, label), field),
    sets.length > 1 ? which : null,
    el("button", { type: "button", onclick: () => step(-1), "aria-label": "Previous row" }, "‹"),
    el("button", { type: "button", onclick: () => step(1), "aria-label": "Next row" }, "›")), problem);
  return { content, set: () => which.value, go, changed: (call) => { set.change = call; } };
}

// Weights of components as bars.
export function bars({ components, weights }) {
  const shown = components.map((k, i) => [k, weights[i]]).filter(([, w], i) => i < 3 || w > 5e-4);
  return el("ul", { class: "bars" }, ...shown.map(([k, w]) => el("li", {},
    el("span", {}, `component ${k}`),
    el("span", { class: "portion", "aria-hidden": "true" }, el("span", { style: `width:${100 * w}%` })),
    el("span", {}, percent(w)))));
}

export const table = () => get("table");
