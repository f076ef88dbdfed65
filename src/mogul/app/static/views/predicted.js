// Densities that a network predicts, while its inputs are moved, and along one of them.

import { get, newest, post, unpack } from "../api.js";
import { choice, knob, rowPicker, searchable, table, telling } from "../columns.js";
import { MARGINS, frame } from "../charts.js";
import { el, facts, svg, told } from "../dom.js";
import { exact, readable, rounded, spread } from "../numbers.js";
import { KEYS, colour, curveChart, cut, fitted, heatChart, keys, layered, path, shaded } from "../plots.js";

const HEIGHT = 340;

export async function render(model) {
  const { names, low, high, typical, targets: last } = await table();
  const n = names.length - last, inputs = names.slice(0, n), targets = names.slice(n);
  const values = typical.slice(0, n).map((v, i) => rounded(v, high[i] - low[i]));
  let chosen = [0], zoom = false, truth = null, found = null, density = null;
  let along = 0, fan = null, strength = null;

  const problem = el("div"), trouble = el("div"), about = el("div", { "aria-live": "polite" }), legend = el("div"), missed = el("div");
  const plot = fitted((width) => {
    if (!found) return null;
    const real = truth && chosen.map((t) => truth[t]);
    if (found.curve) return curveChart(of(chosen[0]), { name: targets[chosen[0]], width, marks: found.modes.map((m) => m[0]), truth: real?.[0] });
    return heatChart(found.heat, density, {
      names: chosen.map((t) => targets[t]), width, truth: real?.every((v) => v != null) ? real : null,
      marks: [{ at: chosen.map((t) => found.mean[t]), name: "mean" }, ...found.modes.map((at) => ({ at, name: "mode" }))],
      alt: `Predicted density of ${chosen.map((t) => targets[t]).join(" and ")}`,
    });
  });
  const chart = fitted((width) => fan && fanChart(fan, strength, [inputs[along], targets[chosen[0]]], values[along], width));

  function of(t) {
    const one = { curve: found.curve };
    for (const key of ["mean", "deviation", "median", "low", "high"]) one[key] = found[key][t];
    return one;
  }

  const predict = newest(telling(problem, async () => {
    const asked = [...chosen], answer = await post("predicted", { inputs: values, targets: asked, zoom });
    if (String(asked) !== String(chosen)) return; // others are asked for already
    found = answer;
    density = found.heat ? unpack(found.heat.density) : null;
    plot.again();
    const own = found.curve ? [KEYS.density, KEYS.interval, KEYS.mean, KEYS.median, KEYS.modes] : [KEYS.middle, KEYS.modes, KEYS.contours];
    legend.replaceChildren(keys(truth ? [...own, found.curve ? KEYS.truth : KEYS.ring] : own));
    about.replaceChildren(facts([
      ...targets.map((name, t) => [name, says(of(t), truth?.[t])]),
      ["modes", `${found.modes.length}: ${found.modes.map((m) => m.map((v, i) => readable(v, found.deviation[chosen[i]])).join(", ")).join("; ")}`],
    ]));
  }, plot.place));

  const follow = newest(telling(trouble, async () => {
    const answer = await post("predicted/along", { inputs: values, input: along, target: chosen[0] });
    fan = answer;
    strength = unpack(answer.density);
    chart.again();
  }, chart.place));

  function moved(row = null) {
    truth = row;
    predict();
    follow();
  }

  const knobs = inputs.map((name, i) => knob({ name, low: low[i], high: high[i], value: values[i] }, (v, error) => {
    if (error) { problem.replaceChildren(told(error)); return; }
    values[i] = v;
    missed.replaceChildren();
    moved();
  }));
  const entries = inputs.map((name, i) => el("div", { class: "column" }, el("span", { class: "name" }, name), knobs[i]));

  const picker = rowPicker(model, async (set, row) => {
    const [all] = (await get(`table/${set}?index=${row}`)).values;
    const gaps = inputs.filter((_, i) => all[i] == null);
    all.slice(0, n).forEach((v, i) => { if (v != null) { values[i] = v; knobs[i].set(v); } });
    missed.replaceChildren(...(gaps.length ? [el("p", { class: "hint", role: "status" }, `Missing in this row, and left as they stood: ${gaps.join(", ")}.`)] : []));
    moved(all.slice(n));
  }, "Inputs of row");

  const look = (wanted) => { chosen = wanted; first.set(chosen[0]); second.set(chosen[1] ?? null); predict(); follow(); };
  const first = choice("Look at", targets, 0, (t) => look([t, ...chosen.slice(1).filter((u) => u !== t)]));
  const second = choice("and at", targets, null, (t) => look(t == null || t === chosen[0] ? [chosen[0]] : [chosen[0], t]), "nothing else");
  const near = el("input", { type: "checkbox", onchange: () => { zoom = near.checked; predict(); } });
  const way = choice("Along", inputs, 0, (i) => { along = i; follow(); });

  moved();
  return el("div", { class: "split" },
    el("section", {},
      el("h2", {}, "What is predicted"),
      el("div", { class: "row" }, ...(targets.length > 1 ? [first, second] : []), el("label", {}, near, " zoom in on the density")),
      plot.place, legend, problem, about),
    el("section", { class: "card aside" }, el("h3", { class: "first" }, "Inputs"), picker.content, missed, ...searchable(inputs, entries, "inputs")),
    el("section", { class: "under" },
      el("h2", {}, "Along one input"),
      el("p", { class: "soft" }, "All other inputs are held where they stand. At every place of the input the density of the target is shaded relative to its highest value there."),
      el("div", { class: "row" }, way), chart.place,
      keys([KEYS.median, { ...KEYS.interval, text: "ends of the 90 % interval", style: "background:var(--c1);height:1px" },
        { text: "training rows; filled: the quarter with the nearest other inputs", style: "background:var(--ink);width:.5em;height:.5em;border-radius:50%" }]),
      trouble));
}

function says(one, real) {
  const say = (value) => readable(value, one.deviation);
  const text = `${spread(one.mean, one.deviation)}; median ${say(one.median)}; 90 %: ${say(one.low)} to ${say(one.high)}`;
  return real == null ? text : `${text}; true: ${exact(real)}`;
}

function fanChart(fan, strength, names, value, width) {
  const drawn = frame(fan.x, fan.y, {
    width, height: HEIGHT, xName: cut(names[0], width - MARGINS), yName: cut(names[1], width - MARGINS),
    alt: `Predicted density of ${names[1]} along ${names[0]}, with training rows`,
  });
  const { root, sx, sy, inner } = drawn, inside = (v) => Math.max(inner.left, Math.min(inner.right, sx(v)));
  fan.quantiles.forEach((q, i) => root.append(svg("path", {
    class: `line quantile`, d: path(fan.at.map((v, j) => [sx(v), sy(q[j])])),
    style: `stroke:var(--c1);stroke-width:${i === 1 ? 2 : 1}${i === 1 ? ";stroke-dasharray:5 4" : ""}`,
  })));
  root.append(svg("line", { class: "here", x1: inside(value), x2: inside(value), y1: inner.top, y2: inner.bottom, style: "stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3" }));
  return layered(drawn, width, HEIGHT, dotted(fan, strength, inner));
}

// The map, made as fine as the screen is, with the rows over it.
function dotted(fan, strength, inner) {
  const canvas = el("canvas", { width: 2 * (inner.right - inner.left), height: 2 * (inner.bottom - inner.top), "aria-hidden": "true" }), context = canvas.getContext("2d");
  context.drawImage(shaded(strength), 0, 0, canvas.width, canvas.height);
  const rgb = colour("ink").join(","), share = (v, [from, to]) => (v - from) / (to - from);
  const { x, y, near } = fan.points;
  x.forEach((v, i) => {
    context.beginPath();
    context.arc(canvas.width * share(v, fan.x), canvas.height * (1 - share(y[i], fan.y)), 4.5, 0, 2 * Math.PI);
    context.fillStyle = context.strokeStyle = `rgba(${rgb},${near[i] ? 0.75 : 0.3})`;
    if (near[i]) context.fill();
    else context.stroke();
  });
  return canvas;
}
