// The page: which views there are, and which one is shown.

import { get } from "./api.js";
import { el, filled, told } from "./dom.js";

const NAMES = {
  components: "Components", drawing: "Draw and in-paint", outliers: "Outliers", samples: "Samples",
  training: "Training", latents: "Latents", pairs: "Pairs", conditional: "Conditional", rows: "Rows",
  predicted: "Predict",
};
const main = document.getElementById("main"), tabs = document.getElementById("tabs");
let model = null, leave = null, turn = 0;

async function start() {
  try {
    model = await get("model");
  } catch (error) {
    main.replaceChildren(told(error));
    return;
  }
  document.title = `${model.title} · mogul explorer`;
  document.getElementById("title").textContent = model.title;
  document.getElementById("subtitle").textContent = model.subtitle;
  tabs.replaceChildren(...model.views.map((name) => el("a", { href: `#${name}` }, NAMES[name] ?? name)));
  if (location.search) history.replaceState(null, "", `/${location.hash}`); // the cookie knows the token now
  await show();
}

async function show() {
  const [asked, argument] = location.hash.slice(1).split("/"); // such as #drawing/332
  const name = model.views.includes(asked) ? asked : model.views[0], mine = ++turn;
  for (const tab of tabs.children) {
    if (tab.getAttribute("href") === `#${name}`) {
      tab.setAttribute("aria-current", "page");
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else tab.removeAttribute("aria-current");
  }
  leave?.();
  leave = null;
  const place = el("div");
  main.replaceChildren(place);
  await filled(place, async () => {
    const view = await import(`./views/${name}.js`);
    const made = await view.render(model, { restart: start, argument });
    if (mine === turn) leave = made.leave ?? null;
    return made.content ?? made;
  });
}

addEventListener("hashchange", () => { if (model) show(); });
start();
