// Why a text got its label: its parts, marked by what they add.
import { Refused, ask } from "./api.js";
import { el } from "./dom.js";
import { number, t } from "./words.js";

const FAINT = 0.1; // of the strongest part: less stays plain
const STRONGEST = 5; // told in words below

const signed = (value) => `${value < 0 ? "−" : "+"}${number(Math.abs(value), 2)}`;

/** A button that asks why, and the answer in its place. body: of the request on the screen. */
export function why(body, signal) {
  const shown = el("div", { role: "status" });
  const button = el("button", { type: "button", id: "why", textContent: t("why") });
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    shown.replaceChildren(el("p", { className: "small", textContent: t("why-wait") }));
    try {
      const { value } = await ask("explain", { body, signal });
      shown.replaceChildren(...explained(value.explanation, body));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refused)) throw error;
      shown.replaceChildren(el("p", { className: "why", textContent: error.message || t("e-else", { status: error.status }) }));
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
  return el("div", { className: "reasons" }, button, shown);
}

function explained(found, body) {
  const most = Math.max(...found.tokens.map((one) => Math.abs(one.attribution)), 1e-9);
  const says = (one) => t(one.attribution < 0 ? "against-value" : "for-value", { text: one.text, value: signed(one.attribution), label: found.label });
  const value = el("p", { className: "small", id: "part-value", textContent: t("part-value") });
  const parts = [];
  const halves = ["text", ...(body.text_pair === undefined ? [] : ["text_pair"])].map((half) => {
    const own = found.tokens.filter((one) => (one.part ?? "text") === half);
    return el("p", { className: "marked" }, ...marked(body[half], own, most, parts, says));
  });
  const all = el("div", { role: "group", "aria-label": t("marked") }, ...halves);
  if (parts.length) parts[0].tabIndex = 0;
  const tell = (event) => {
    if (event.target.dataset.says) value.textContent = event.target.dataset.says;
  };
  for (const name of ["mouseover", "focusin"]) all.addEventListener(name, tell);
  // One stop for Tab; arrows go from part to part.
  all.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = parts[parts.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const strongest = found.tokens.toSorted((a, b) => Math.abs(b.attribution) - Math.abs(a.attribution)).slice(0, STRONGEST);
  const method = t("method", { method: found.method.replaceAll("_", " "), passes: number(found.passes), seconds: number(found.seconds, 1) });
  return [
    all,
    value,
    el(
      "p",
      { className: "small legend" },
      el("span", { className: "part for", style: "--share: 0.7", textContent: t("for", { label: found.label }) }),
      " ",
      el("span", { className: "part against", style: "--share: 0.7", textContent: t("against") }),
    ),
    el("p", { className: "small", id: "strongest", textContent: t("strongest", { parts: strongest.map((one) => `${one.text} ${signed(one.attribution)}`).join(" · ") }) }),
    el("p", { className: "small", textContent: method }),
  ];
}

/** The text with its parts as elements, which are added to `parts`. Offsets are code points. */
function marked(text, tokens, most, parts, says) {
  const points = [...text];
  const nodes = [];
  let at = 0;
  for (const one of tokens) {
    nodes.push(points.slice(at, one.start).join(""));
    const share = Math.abs(one.attribution) / most;
    const kind = share < FAINT ? "faint" : one.attribution < 0 ? "against" : "for";
    const part = el("span", { className: `part ${kind}`, tabIndex: -1, role: "img", "aria-label": says(one), textContent: points.slice(one.start, one.end).join("") });
    part.dataset.says = says(one);
    part.style.setProperty("--share", share.toFixed(2));
    parts.push(part);
    nodes.push(part);
    at = one.end;
  }
  nodes.push(points.slice(at).join(""));
  return nodes;
}
