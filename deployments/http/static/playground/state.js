// How busy the service is, asked only while somebody looks.
import { Refused, ask } from "./api.js";
import { $, el, svg } from "./dom.js";
import { number, t } from "./words.js";

const EVERY_MS = 2000;
const POINTS = 30;
const CHAIN = ["Tokenizer", "Classifier", "Postprocessor", "Explainer"]; // as a text goes; others before

const histories = { queue: [], speed: [], batch: [] };
const seen = new Map(); // Classifier → what it had done when last asked
let asked = null;
let timer = 0;
let before = null; // when the last answer came
let last = null;
let refused = false;

function remember(name, value) {
  histories[name].push(value);
  if (histories[name].length > POINTS) histories[name].shift();
}

function spark(name) {
  const points = histories[name];
  const most = Math.max(...points, 1);
  const at = (value, i) => `${(100 * (i + POINTS - points.length)) / (POINTS - 1)},${23 - (21 * value) / most}`;
  const line = points.map(at).join(" ");
  const first = (100 * (POINTS - points.length)) / (POINTS - 1);
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polygon", { points: `${first},24 ${line} 100,24` }),
    svg("polyline", { points: line }),
  );
}

function tile(name, figure, remark, ...more) {
  return el(
    "div",
    { className: "tile" },
    el("dt", { textContent: t(name) }),
    el("dd", {}, el("span", { className: "big", textContent: figure }), el("span", { className: "small", textContent: remark }), ...more),
  );
}

function replicas(deployments) {
  return el(
    "ul",
    { className: "replicas" },
    ...deployments.toSorted((a, b) => CHAIN.indexOf(a.name) - CHAIN.indexOf(b.name)).map(({ name, replicas: states }) => {
      const { RUNNING: running = 0, ...others } = states;
      const dots = el("span", { className: "dots", "aria-hidden": "true" });
      for (let i = 0; i < Math.min(running, 12); i += 1) dots.append(el("i"));
      const said = [t("running-of", { n: running })];
      for (const [state, n] of Object.entries(others)) {
        said.push(t("not-running", { n, state: state.toLowerCase() }));
        for (let i = 0; i < Math.min(n, 12); i += 1) dots.append(el("i", { className: "other" }));
      }
      return el("li", {}, el("span", { className: "name", textContent: name }), dots, el("span", { className: "small", textContent: said.join(", ") }));
    }),
  );
}

/** What was done since the last answer. Another replica may know less than the one before. */
function since(classifiers, now) {
  const done = { passes: 0, texts: 0, tokens: 0 };
  for (const one of classifiers) {
    const old = seen.get(one.replica);
    if (old && one.read_tokens >= old.read_tokens) {
      done.passes += one.passes - old.passes;
      done.texts += one.read_texts - old.read_texts;
      done.tokens += one.read_tokens - old.read_tokens;
    }
    if (!old || one.read_tokens > old.read_tokens) seen.set(one.replica, one);
  }
  const seconds = before === null ? 0 : (now - before) / 1000;
  before = now;
  return { ...done, speed: seconds ? done.tokens / seconds : 0 };
}

function take(state) {
  const done = since(state.classifiers, performance.now());
  const waiting = state.classifiers.reduce((n, one) => n + (one.heard_s < 3 ? one.queued_tokens : 0), 0);
  remember("queue", waiting);
  remember("speed", done.speed);
  if (done.passes) last = { texts: done.texts / done.passes, tokens: done.tokens / done.passes };
  remember("batch", done.passes ? done.texts / done.passes : 0);
  const capacity = state.classifiers.reduce((n, one) => n + one.tokens_per_s, 0);
  const shown = [
    tile("tokens-s", number(done.speed), capacity ? t("of-capacity", { n: number(capacity) }) : "", spark("speed")),
    tile("queue-now", number(waiting), `${t("tokens-wait")} · ${t("texts-here", { n: number(state.ingress.pending_texts ?? 0) })}`, spark("queue")),
    tile("batch", last ? number(last.texts, 1) : "–", last ? t("per-pass", { n: number(last.tokens) }) : "", spark("batch")),
    tile("refusals", number(state.ingress.refused_requests ?? 0), t("by-ingress")),
  ];
  const parts = [el("dl", { className: "tiles" }, ...shown)];
  if (state.deployments.length) parts.unshift(replicas(state.deployments));
  $("state").replaceChildren(...parts);
  $("state").hidden = false;
  $("state-note").textContent = t("state-note");
}

async function look() {
  asked = new AbortController();
  try {
    take((await ask("state", { signal: asked.signal })).value);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("state").hidden = true;
    const shut = error instanceof Refused && (error.status === 401 || error.status === 403);
    $("state-note").textContent = t(shut ? "state-off" : "state-wait");
    if (shut) {
      refused = true; // asked again with another key only
      return;
    }
  }
  timer = setTimeout(look, EVERY_MS);
}

function start() {
  clearTimeout(timer);
  asked?.abort();
  if (document.visibilityState === "visible" && !refused) look();
}

/** To be called once, and again when the key or the language changed. */
export function watchState() {
  refused = false;
  start();
}

document.addEventListener("visibilitychange", start);
