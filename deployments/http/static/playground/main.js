// The page: what is asked, when, and what is shown of it.
import { Refused, ask, key } from "./api.js";
import { code } from "./code.js";
import { $, el } from "./dom.js";
import { marksOf } from "./marks.js";
import { several, showCuts, single, score } from "./results.js";
import { watchState } from "./state.js";
import { columnsOf, label } from "./table.js";
import { showTimes } from "./times.js";
import { why } from "./why.js";
import { showWindow } from "./windows.js";
import { isChinese, number, switchLanguage, t, translate } from "./words.js";

const PAUSE_MS = 250; // between the last key and the request
const MOST_LINES = 200;

let info = null;
let file = null;
let shown = null; // {body, texts, answers, answer}
let under = new AbortController(); // the request under way
let labelling = null;
let timer = 0;

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const mode = () => chosen("mode");

// What is asked

/** What the service does with a long text where nobody says. */
const usual = () => info?.long_text?.strategy ?? "truncate";

function options() {
  const said = {};
  const topK = $("top-k");
  if (topK.value && topK.checkValidity()) said.top_k = topK.valueAsNumber;
  const threshold = $("threshold");
  if (threshold.value && threshold.checkValidity()) said.threshold = threshold.valueAsNumber;
  if ($("raw").checked) said.raw_scores = true;
  const long = $("long-text").value;
  if (long !== usual()) said.long_text = long;
  return said;
}

const mostLines = () => Math.min(MOST_LINES, info?.limits?.max_batch_texts ?? MOST_LINES);

const writtenLines = () => $("text").value.split("\n").filter((line) => line.trim());

/** The body of POST /classify for what is on the screen, or null where there is nothing to ask. */
function request() {
  const text = $("text").value;
  if (mode() === "lines") {
    const texts = writtenLines().slice(0, mostLines());
    return texts.length ? { text: texts, ...options() } : null;
  }
  if (!text.trim()) return null;
  if (mode() === "one") return { text, ...options() };
  const pair = $("text-pair").value;
  return pair.trim() ? { text, text_pair: pair, ...options() } : null;
}

// What is shown

function empty() {
  shown = null;
  $("times").hidden = true;
  $("said").textContent = "";
  let said = "";
  if (mode() === "pair" && $("text").value.trim()) said = t("pair-empty");
  else if (mode() !== "csv" && info) {
    const few = info.labels.slice(0, 12).join(isChinese() ? "、" : ", ");
    const more = info.labels.length - 12;
    const labels = more > 0 ? t("empty-more", { labels: few, n: number(more) }) : few;
    said = t("empty", { n: number(info.labels.length), labels });
  }
  $("results").replaceChildren(el("p", { className: "empty", textContent: said }));
}

function render() {
  const { body, texts, answers, answer, lines } = shown;
  showTimes(answer);
  if (!Array.isArray(body.text)) {
    const [one] = answers;
    $("results").replaceChildren(single(one, body, info), ...(info?.explain ? [why(body, under.signal)] : []));
    showWindow($("results"));
    $("said").textContent = [t("said", { label: one.label, score: score(one.score, body.raw_scores) }), ...marksOf(one, info).map(({ said }) => said)].join(". ");
    return;
  }
  const bad = answers.filter((one) => one.error).length;
  $("results").replaceChildren(several(texts, answers, body, info));
  $("said").textContent = t("said-many", { n: number(answers.length - bad), bad: number(bad) });
  if (lines > texts.length) {
    $("results").prepend(el("p", { className: "small", textContent: t("too-many", { n: number(lines), limit: number(texts.length) }) }));
  }
}

function notice(...said) {
  $("notice").replaceChildren(...said.filter(Boolean).map((one) => el("p", { textContent: one })));
}

/** Says what went wrong and what to do; comes back by itself where waiting helps. */
function refuse(error) {
  if (!(error instanceof Refused)) throw error;
  const { status, message, retryAfterS } = error;
  const known = [0, 401, 403, 429, 503].includes(status);
  let said = t(known ? `e-${status}` : "e-else", { status });
  if (status === 401 && key.get()) said = t("e-401-wrong");
  const waits = [0, 429, 502, 503].includes(status) ? (retryAfterS ?? 3) : null;
  notice(said, message, waits && t("retry-in", { n: number(waits) }));
  $("times").hidden = true;
  if (status === 401) openKey();
  if (waits !== null) timer = setTimeout(info ? classify : begin, waits * 1000);
}

async function classify() {
  under.abort();
  under = new AbortController();
  const { signal } = under;
  const body = request();
  const lines = writtenLines().length; // now: the answer may come after more was written
  if (body === null) {
    notice();
    empty();
    return;
  }
  $("results").setAttribute("aria-busy", "true");
  try {
    const answer = await ask("classify", { body, signal });
    const several = Array.isArray(answer.value);
    const answers = several ? answer.value : [answer.value];
    shown = { body, texts: several ? body.text : [body.text], answers, answer, lines };
    notice();
    render();
    if (body.text_pair === undefined) await showCuts($("results"), shown.texts, answers, body, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    empty();
    refuse(error);
  } finally {
    if (!signal.aborted) $("results").removeAttribute("aria-busy");
  }
}

function changed(pauseMs = PAUSE_MS) {
  clearTimeout(timer);
  showCode();
  if (mode() !== "csv") timer = setTimeout(classify, pauseMs);
}

function showCode() {
  const table = mode() === "csv" && file ? { name: file.name, column: $("column").selectedOptions[0]?.textContent ?? "" } : null;
  const body = table ? options() : (request() ?? { text: $("text").placeholder, ...options() });
  $("snippet").firstElementChild.textContent = code(chosen("code"), body, table);
}

function showMode() {
  under.abort();
  const now = mode();
  $("writing").hidden = now === "csv";
  $("table").hidden = now !== "csv";
  $("second").hidden = now !== "pair";
  $("text-label").textContent = t({ lines: "texts", pair: "first" }[now] ?? "text");
  $("text").placeholder = now === "csv" ? "" : t(`write-${now}`);
  notice();
  if (!labelling) empty();
}

// A table

async function take(given) {
  if (!given || labelling) return;
  document.querySelector('input[name="mode"][value="csv"]').checked = true;
  file = given;
  showMode();
  sayFile();
  try {
    const columns = await columnsOf(given);
    $("column").replaceChildren(...columns.map((name, i) => el("option", { value: String(i), textContent: name })));
    const likely = columns.findIndex((name) => /text|review|comment|content|sentence|文本|评论|内容/i.test(name));
    if (likely >= 0) $("column").value = String(likely);
    $("run").hidden = columns.length === 0;
    if (!columns.length) notice(t("csv-empty"));
    else $("start").focus();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    $("run").hidden = true;
    notice(t("csv-broken"));
  }
  showCode();
}

/** A file that was dropped has no name in the browser's own field. */
function sayFile() {
  $("file-name").textContent = file === $("file").files[0] ? "" : file.name;
}

async function labelAll() {
  labelling = new AbortController();
  notice();
  $("start").hidden = true;
  $("stop").hidden = false;
  $("times").hidden = true;
  const say = (said) => ($("said").textContent = said);
  say("");
  try {
    await label(file, Number($("column").value), options(), { limits: info?.limits }, labelling.signal, say);
  } catch (error) {
    if (error instanceof RangeError) notice(t("csv-broken"));
    else refuse(error);
  } finally {
    labelling.abort();
    labelling = null;
    $("stop").hidden = true;
    $("start").hidden = false;
  }
}

// A key, the language, the colours

function openKey() {
  $("key").value = key.get();
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function useKey(value) {
  key.set(value.trim());
  $("key-dialog").close();
  sayKey();
  begin();
}

function sayKey() {
  $("key-open").textContent = t(key.get() ? "key-set" : "key");
}

function sayLanguage() {
  translate();
  $("language").textContent = isChinese() ? "English" : "中文";
  $("language").lang = isChinese() ? "en" : "zh-CN";
  $("top-k").placeholder = t("all");
  if (file) sayFile();
  sayKey();
}

const darkNow = () => document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function sayTheme() {
  $("theme").setAttribute("aria-pressed", String(darkNow() === "dark"));
}

function sayModel() {
  const { model, engine, dtype, device } = info;
  $("model").textContent = [model, engine, dtype, device].filter(Boolean).join(" · ");
  $("threshold-row").hidden = !String(info.problem_type).startsWith("multi_label");
}

async function copy() {
  let said = "copied";
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
  } catch {
    // Without https, and not on this machine, a browser gives no clipboard.
    getSelection().selectAllChildren($("snippet"));
    said = document.execCommand("copy") ? "copied" : "not-copied";
  }
  $("copy").textContent = t(said);
  setTimeout(() => ($("copy").textContent = t("copy")), 2000);
}

/** Asks which model it is, and then what stands in the field already. */
async function begin() {
  clearTimeout(timer);
  watchState();
  try {
    const first = info === null;
    info = (await ask("info")).value;
    if (first) $("long-text").value = usual();
    notice();
    sayModel();
    if (!labelling) {
      empty();
      changed(0);
    }
  } catch (error) {
    refuse(error);
  }
}

for (const id of ["text", "text-pair"]) {
  // An input method's half-written words are no text yet.
  $(id).addEventListener("input", (event) => event.isComposing || changed());
  $(id).addEventListener("compositionend", () => changed());
}
for (const id of ["top-k", "threshold", "raw"]) $(id).addEventListener("input", () => changed());
$("long-text").addEventListener("change", () => changed());
for (const one of document.querySelectorAll('input[name="mode"]')) {
  one.addEventListener("change", () => {
    showMode();
    changed(0);
  });
}
for (const one of document.querySelectorAll('input[name="code"]')) one.addEventListener("change", showCode);
$("copy").addEventListener("click", copy);
$("column").addEventListener("change", showCode);
$("file").addEventListener("change", () => take($("file").files[0]));
$("start").addEventListener("click", labelAll);
$("stop").addEventListener("click", () => labelling?.abort());
$("key-open").addEventListener("click", openKey);
$("key-close").addEventListener("click", () => $("key-dialog").close());
$("key-forget").addEventListener("click", () => useKey(""));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
});
$("language").addEventListener("click", () => {
  switchLanguage();
  sayLanguage();
  if (!labelling) showMode();
  watchState();
  changed(0);
});
$("theme").addEventListener("click", () => {
  const now = darkNow() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  localStorage.setItem("rayclassify.theme", now);
  sayTheme();
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}

sayLanguage();
sayTheme();
showMode();
showCode();
begin();
