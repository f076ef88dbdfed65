// A wall of components by weight; one of them with sliders that bend its mean along its factors.

import { get, newest, unpack } from "../api.js";
import { el, filled, slider, told } from "../dom.js";
import { count, fixed, percent, readable } from "../numbers.js";
import { draw, picture, toBytes, wall } from "../pixels.js";

const REACH = 3; // standard deviations that sliders go to either side

export async function render(model) {
  const detail = el("section", { class: "card", "aria-live": "polite", "aria-label": "The chosen component" });
  const walls = el("div"), more = el("button", { type: "button" }, "More components");
  const state = { pressed: null, shown: 0, ready: false };

  async function load() {
    const page = await get(`components?start=${state.shown}`);
    const means = unpack(page.means);
    state.shown += page.index.length;
    more.hidden = state.shown >= page.total;
    const label = (i) => ({
      text: percent(page.weights[i]),
      alt: `Mean of component ${page.index[i]}, weight ${percent(page.weights[i])}`,
    });
    const made = wall(means, label, (i, tile) => choose(page.index[i], tile));
    walls.append(made);
    return made;
  }

  function choose(k, tile) {
    state.pressed?.setAttribute("aria-pressed", "false");
    tile.setAttribute("aria-pressed", "true");
    state.pressed = tile;
    filled(detail, () => component(model, k));
    if (state.ready && matchMedia("(max-width: 860px)").matches) detail.scrollIntoView({ block: "start" });
  }

  more.addEventListener("click", () => load().catch((error) => walls.append(told(error))));
  const first = await load();
  first.firstElementChild?.click();
  state.ready = true;
  return el("div", { class: "split" },
    el("section", {}, el("h2", {}, "Components, the heaviest first"),
      el("p", { class: "soft" }, "Each is a Gaussian: a mean, the directions in which it bends, and noise. Choose one."),
      walls, el("div", { class: "row" }, more)),
    detail);
}

async function component(model, k) {
  const found = await get(`components/${k}`);
  const mean = unpack(found.mean), directions = unpack(found.directions);
  const [factors, size] = directions.shape, steps = new Float32Array(factors);
  const bent = el("canvas", { role: "img", "aria-label": `Mean of component ${k}, bent by the sliders` });
  
  function bend() {
    const values = Float32Array.from(mean.values);
    for (let h = 0; h < factors; h++) {
      if (!steps[h]) continue;
      for (let d = 0; d < size; d++) values[d] += steps[h] * directions.values[h * size + d];
    }
    draw(bent, toBytes(values, model.levels), model.shape);
  }

  const sliders = Array.from({ length: factors }, (_, h) => slider(`factor ${h + 1}`, {
    min: -REACH, max: REACH, step: 0.1, value: 0, show: (v) => `${fixed(v, 1)} σ`,
  }, (v) => { steps[h] = v; bend(); }));
  const still = el("button", { type: "button", onclick: () => { steps.fill(0); sliders.forEach((s) => s.set(0)); bend(); } }, "Back to the mean");
  bend();
  const bending = el("figure", {}, bent, el("figcaption", {}, factors ? "mean, bent" : "mean"));
  return [
    el("h2", {}, `Component ${k}`),
    el("p", { class: "soft" }, `${percent(found.weight)} of the density.`),
    el("div", { class: "pair" }, bending, noisy(model, k, unpack(found.noise).values)),
    el("div", { class: "sliders" }, ...sliders),
    factors ? el("div", { class: "row" }, still) : el("p", { class: "hint" }, "This family has no factors: nothing bends."),
    ...nearest(model, k), ...fresh(k),
  ];
}

function noisy(model, k, noise) {
  const most = Math.max(...noise), least = Math.min(...noise);
  if (most - least < 1e-6 * most) return el("p", { class: "hint" }, `Noise that no factor explains: ${readable(most)} (one standard deviation) at every pixel.`);
  const bytes = Uint8Array.from(noise, (v) => Math.round((255 * v) / most));
  return el("figure", {}, picture(bytes, model.shape, 0, `Noise of component ${k}, its largest deviation white`),
    el("figcaption", {}, `noise, white is ${readable(most)}`));
}

function nearest(model, k) {
  const place = el("div");
  filled(place, async () => {
    if (model.missing.train) throw new Error(`The training data cannot be opened: ${model.missing.train}`);
    const found = await get(`components/${k}/nearest`);
    if (!found.rows.length) return el("p", { class: "hint" }, "It explains no training image.");
    return [
      wall(unpack(found.pixels), (i) => ({ text: "", alt: `Training image ${found.rows[i]}` })),
      el("p", { class: "hint" }, `Most responsible for ${count(found.owned)} of ${count(found.of)} images.`),
    ];
  }, "Looking through the training images …");
  return [el("h3", {}, "Training images that it explains best"), place];
}

function fresh(k) {
  const place = el("div");
  let seed = 0, noise = false;
  const drawn = newest(() => filled(place, async () => {
    const found = await get(`components/${k}/samples?seed=${seed}&noise=${noise}`);
    return wall(unpack(found.pixels), (i) => ({ text: "", alt: `Sample ${i + 1}` }));
  }));
  drawn();
  const again = el("button", { type: "button", onclick: () => { seed += 1; drawn(); } }, "Draw again");
  const box = el("input", { type: "checkbox", onchange: (event) => { noise = event.target.checked; drawn(); } });
  return [el("h3", {}, "Fresh samples"), place, el("div", { class: "row" }, again, el("label", {}, box, " with noise"))];
}
