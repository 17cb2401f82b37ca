// All that the page says, in its two languages.
const EN = {
  skip: "Skip to the text", service: "Service", api: "API", key: "Key", "key-set": "Key ✓", dark: "Dark",
  title: "Text in, label out.", yours: "Your text", what: "What you classify",
  one: "One text", lines: "One per line", pair: "A pair", csv: "CSV file",
  text: "Text", texts: "Texts, one per line", first: "First text", second: "Second text",
  "write-one": "Type or paste a text. The labels follow as you type.",
  "write-lines": "A text on each line.",
  "write-pair": "The first text of the pair, for models that read two.",
  choose: "Choose a CSV file",
  drop: "or drop it anywhere on this page. It is read in pieces and never stored.",
  column: "Column", start: "Classify", stop: "Stop", options: "Options",
  topk: "Labels", all: "all", threshold: "Threshold", raw: "Raw scores",
  long: "Long texts", "long-truncate": "cut", "long-window": "read in windows", "long-error": "refuse",
  answer: "Answer", time: "Time", code: "The same as code", "in-language": "In which language",
  copy: "Copy", copied: "Copied", "not-copied": "Select and copy it yourself",
  now: "The service, now",
  "key-title": "Your key", "key-note": "It stays in this tab and is forgotten when you close it.",
  "key-field": "API key", use: "Use it", forget: "Forget it", close: "Close",
  empty: "The model knows {n} labels: {labels}.", "empty-more": "{labels} and {n} more",
  "pair-empty": "Write both halves of the pair.",
  said: "{label}, {score}", "said-many": "{n} texts classified, {bad} not",
  tokens: "{n} tokens", "read-all": "read whole", redacted: "{n} pieces of personal data cut out",
  "was-cut": "Cut: the model read {n} tokens and not the rest.",
  "cut-at": "Cut after character {at} of {of}. The model read {n} tokens; what is struck out it did not read.",
  "by-first": "Small model", "by-second": "Large model",
  "by-unsure": "Small model, unsure: the large one could not answer",
  abstains: "Abstains: it is not sure enough", "abstains-at": "Abstains: below {threshold}", "label-set": "May well be: {labels}",
  windows: "Read whole, in {n} windows. Window {i} says most of the label: characters {from} to {to}.",
  deciding: "The window that decided, and what stands around it",
  "at-threshold": "From {threshold} up: {labels}", none: "none",
  "too-many": "{n} lines; this page shows the first {limit}. For more, take a CSV.",
  network: "network", tokenize: "tokenizing", queue: "waiting", model: "model", http: "HTTP", ms: "{n} ms", under: "< 1 ms",
  loading: "The model is loading.", "retry-in": "Trying again in {n} s.",
  why: "Why?", "why-wait": "It is looked at part by part. The first time this takes longer.",
  marked: "The text, marked by what each part adds", for: "speaks for {label}", against: "speaks against it",
  "part-value": "Point at a part, or go there by the arrow keys, for its value.",
  "for-value": "“{text}” {value}: it speaks for {label}", "against-value": "“{text}” {value}: it speaks against {label}",
  strongest: "Most: {parts}", method: "By {method}, {passes} passes, {seconds} s. It says what the model reads, not what is true.",
  "e-0": "The service can't be reached. Is it running?",
  "e-401": "This service asks for a key. Enter yours.",
  "e-401-wrong": "This key is not valid here, or no longer. Enter another one.",
  "e-403": "This key may not do that. Ask for one with the scope classify.",
  "e-429": "The service is full, or your key has used up its rate.",
  "e-503": "The model is not ready yet.",
  "e-else": "The service answered {status}.",
  "state-off": "GET /state needs a key with the scope admin.",
  "state-wait": "No figures yet.",
  "state-note": "Seen by the replica that answered; refreshed while this tab is open.",
  replicas: "Replicas", "queue-now": "Queue", "tokens-s": "Tokens/s", batch: "Texts per pass", refusals: "Refused",
  "running-of": "{n} running", "not-running": "{n} {state}", "tokens-wait": "tokens wait", "texts-here": "{n} texts here",
  "of-capacity": "of about {n} in full batches", "per-pass": "{n} tokens per pass", "by-ingress": "requests, by this replica",
  rows: "{done} rows, {bad} with an error", "rows-left": "{percent} of the file",
  "csv-done": "Done: {done} rows, {bad} with an error.", "csv-stopped": "Stopped after {done} rows.",
  "csv-shown": "The first {n} rows. All are in the download.",
  download: "Download the labelled CSV", row: "Row", label: "Label", score: "Score",
  "csv-empty": "This file has no rows below its first line.",
  "csv-code": "the whole file, from the command line",
  "csv-broken": "This file can't be read as CSV: a quote has no end.",
};

const ZH = {
  skip: "跳到文本", service: "服务", api: "接口", key: "密钥", "key-set": "密钥 ✓", dark: "深色",
  title: "输入文本，得到标签。", yours: "你的文本", what: "分类对象",
  one: "单条文本", lines: "每行一条", pair: "文本对", csv: "CSV 文件",
  text: "文本", texts: "文本，每行一条", first: "第一段文本", second: "第二段文本",
  "write-one": "输入或粘贴一段文本，标签会随输入更新。",
  "write-lines": "每行写一条文本。",
  "write-pair": "文本对的第一段，适用于读取两段文本的模型。",
  choose: "选择 CSV 文件",
  drop: "或把文件拖到页面任意位置。文件分块读取，不会被保存。",
  column: "列", start: "开始分类", stop: "停止", options: "选项",
  topk: "标签数", all: "全部", threshold: "阈值", raw: "原始分数",
  long: "长文本", "long-truncate": "截断", "long-window": "分窗读全文", "long-error": "拒绝",
  answer: "结果", time: "耗时", code: "对应的代码", "in-language": "选择语言",
  copy: "复制", copied: "已复制", "not-copied": "请手动选中并复制",
  now: "服务当前状态",
  "key-title": "你的密钥", "key-note": "密钥只保存在这个标签页，关闭后即清除。",
  "key-field": "API 密钥", use: "使用", forget: "清除", close: "关闭",
  empty: "模型共有 {n} 个标签：{labels}。", "empty-more": "{labels} 等，另有 {n} 个",
  "pair-empty": "请填写文本对的两段文本。",
  said: "{label}，{score}", "said-many": "已分类 {n} 条，{bad} 条失败",
  tokens: "{n} 个 token", "read-all": "全文已读", redacted: "已去除 {n} 处个人信息",
  "was-cut": "已截断：模型只读了 {n} 个 token，其余未读。",
  "cut-at": "在第 {at} 个字符处截断（共 {of} 个）。模型读了 {n} 个 token，划掉的部分没有读。",
  "by-first": "小模型", "by-second": "大模型",
  "by-unsure": "小模型，不确定：大模型未能回答",
  abstains: "弃权：把握不足", "abstains-at": "弃权：低于 {threshold}", "label-set": "可能的标签：{labels}",
  windows: "全文已读，共 {n} 个窗口。第 {i} 个窗口最能决定标签：第 {from} 至 {to} 个字符。",
  deciding: "起决定作用的窗口及其前后文",
  "at-threshold": "达到 {threshold} 的标签：{labels}", none: "无",
  "too-many": "共 {n} 行，页面只显示前 {limit} 行。更多请用 CSV。",
  network: "网络", tokenize: "分词", queue: "排队", model: "模型", http: "HTTP", ms: "{n} 毫秒", under: "< 1 毫秒",
  loading: "模型正在加载。", "retry-in": "{n} 秒后重试。",
  why: "为什么？", "why-wait": "正在逐段分析，首次需要更久。",
  marked: "文本，按各部分的作用标出", for: "支持 {label}", against: "反对该标签",
  "part-value": "指向某一部分，或用方向键移动，可查看数值。",
  "for-value": "“{text}” {value}：支持 {label}", "against-value": "“{text}” {value}：反对 {label}",
  strongest: "作用最大：{parts}", method: "方法 {method}，{passes} 次前向计算，{seconds} 秒。它说明模型读到了什么，而不是事实如何。",
  "e-0": "无法连接服务，请确认服务已启动。",
  "e-401": "此服务需要密钥，请输入你的密钥。",
  "e-401-wrong": "此密钥无效或已失效，请换一个。",
  "e-403": "此密钥没有权限，请申请带 classify 权限的密钥。",
  "e-429": "服务已满，或你的密钥已用完配额。",
  "e-503": "模型尚未就绪。",
  "e-else": "服务返回了 {status}。",
  "state-off": "GET /state 需要带 admin 权限的密钥。",
  "state-wait": "暂无数据。",
  "state-note": "数据来自应答的副本，仅在此标签页可见时刷新。",
  replicas: "副本", "queue-now": "队列", "tokens-s": "每秒 token", batch: "每批文本", refusals: "拒绝",
  "running-of": "{n} 个运行中", "not-running": "{n} 个 {state}", "tokens-wait": "个 token 等待中", "texts-here": "此处 {n} 条文本",
  "of-capacity": "满批约可达 {n}", "per-pass": "每批 {n} 个 token", "by-ingress": "个请求（此副本）",
  rows: "已处理 {done} 行，{bad} 行出错", "rows-left": "文件的 {percent}",
  "csv-done": "完成：{done} 行，{bad} 行出错。", "csv-stopped": "已停止，处理了 {done} 行。",
  "csv-shown": "这里是前 {n} 行，全部结果在下载文件中。",
  download: "下载带标签的 CSV", row: "行", label: "标签", score: "分数",
  "csv-empty": "文件在首行以下没有数据。",
  "csv-code": "用命令行处理整个文件",
  "csv-broken": "无法按 CSV 读取：有引号没有结束。",
};

const KEPT = "rayclassify.language";
let language = localStorage.getItem(KEPT) ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const isChinese = () => language === "zh";
export const number = (value, digits = 0) =>
  value.toLocaleString(isChinese() ? "zh-CN" : "en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
export const percent = (value) => `${number(value * 100, 1)} %`;

/** The sentence of this name, with its {blanks} filled. */
export function t(name, blanks = {}) {
  const said = (isChinese() ? ZH : EN)[name] ?? name;
  return said.replace(/\{(\w+)\}/g, (whole, blank) => String(blanks[blank] ?? whole));
}

export function switchLanguage() {
  language = isChinese() ? "en" : "zh";
  localStorage.setItem(KEPT, language);
}

/** Says all that stands in the page itself in the language of now. */
export function translate() {
  document.documentElement.lang = isChinese() ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = t(one.dataset.t);
  for (const one of document.querySelectorAll("[data-t-label]")) {
    one.setAttribute("aria-label", t(one.dataset.tLabel));
  }
}
