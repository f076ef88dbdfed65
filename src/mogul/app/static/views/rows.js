// A row with gaps: what is missing, inferred from what is there.

import { get, newest, post } from "../api.js";
import { bars, rowPicker, searchable, table, telling, typed, widen, write } from "../columns.js";
import { el, facts } from "../dom.js";
import { exact, nats, percent, readable, rounded, spread } from "../numbers.js";

const DRAWS = 5;

export async function render(model) {
  const { names, low, high, typical } = await table();
  const problem = el("div"), about = el("div", { "aria-live": "polite" });
  let seed = 0;

  const ask = newest(telling(problem, async () => {
    const values = fields.map((field, i) => typed(field, names[i]));
    const found = await post("complete", { values, draws: DRAWS, seed });
    const place = new Map(found.missing.map((i, j) => [i, j]));
    entries.forEach((entry, i) => entry.say(found, place.get(i)));
    about.replaceChildren(facts(likelihood(found)), el("h3", {}, "Components that explain it"), bars(found.responsibilities));
    again.disabled = !found.missing.length;
  }));

  const fields = names.map((name) => el("input", {
    type: "text", inputmode: "decimal", class: "number", placeholder: "missing", "aria-label": name, autocomplete: "off", oninput: ({ target }) => { widen(target); ask(); },
  }));
  const entries = names.map((name, i) => {
    const says = el("div", { class: "says" });
    const clear = el("button", { type: "button", class: "small", "aria-label": `Clear ${name}`, onclick: () => { write(fields[i], ""); ask(); } }, "clear");
    const entry = el("div", { class: "column entry" }, el("span", { class: "name" }, name), fields[i], clear, says);
    entry.say = (found, j) => {
      clear.disabled = j != null;
      entry.classList.toggle("missing", j != null);
      says.replaceChildren(...(j == null ? [] : inferred(found, j)));
    };
    return entry;
  });

  const picker = rowPicker(model, async (set, row) => {
    const [values] = (await get(`table/${set}?index=${row}`)).values;
    fields.forEach((field, i) => { write(field, exact(values[i])); });
    ask();
  }, "Fill from row");
  const again = el("button", { type: "button", onclick: () => { seed += 1; ask(); } }, "Draw again");
  const empty = el("button", { type: "button", onclick: () => { fields.forEach((field) => write(field, "")); ask(); } }, "Clear all");

  if (Object.keys(model.sets).length) picker.go(0);
  else { fields.forEach((field, i) => { write(field, exact(rounded(typical[i], high[i] - low[i]))); }); ask(); }
  return el("div", { class: "split" },
    el("section", {},
      el("h2", {}, "Fill the gaps of a row"),
      el("p", { class: "soft" }, "An empty field is missing. It is inferred from all others by the exact conditional: its mean and deviation, the interval that holds it with 90 %, and draws."),
      picker.content, el("div", { class: "row" }, empty, again), problem,
      el("div", { class: "card" }, ...searchable(names, entries))),
    el("section", { class: "card stays" }, el("h3", { class: "first" }, "The row as a whole"), about));
}

function inferred(found, j) {
  const say = (value) => readable(value, found.deviation[j]);
  return [
    el("strong", {}, spread(found.mean[j], found.deviation[j])),
    el("span", {}, `90 %: ${say(found.low[j])} to ${say(found.high[j])}`),
    el("span", { class: "soft" }, `draws: ${found.draws.map((draw) => say(draw[j])).join("; ")}`),
  ];
}

function likelihood(found) {
  if (!found.whole) {
    return [["missing", `${found.missing.length} value${found.missing.length > 1 ? "s" : ""}`], ["log p(what is there)", nats(found.log_likelihood)]];
  }
  return [["log-likelihood", nats(found.log_likelihood)], ...rank(found)];
}

export function rank(found) {
  if (found.percentile == null) return [];
  return [["among training rows", `likelier than ${percent(found.percentile / 100)}`]];
}
