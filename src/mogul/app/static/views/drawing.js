import { el } from "../dom.js";
export const render = async () => el("p", {}, "");
