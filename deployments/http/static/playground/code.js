// What is on the screen as code. A key is never written out: the shell has it.
import { key, root } from "./api.js";

const OPTIONS = ["top_k", "threshold", "raw_scores", "long_text"];

const url = (path = "") => new URL(path, root).href.replace(/\/$/, "");
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function python(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[\n${value.map((one) => `    ${python(one)},\n`).join("")}]`;
  return JSON.stringify(value);
}

/** body: of POST /classify. file: {name, column}, where a table is on the screen. */
export function code(language, body, file) {
  const made = { curl, python: client, javascript }[language];
  return made(body, file);
}

function curl(body, file) {
  if (file) {
    return `rayclassify classify ${shell(file.name)} --text-column ${shell(file.column)} \\\n  --url ${url()} --output labelled.csv`;
  }
  const auth = key.get() ? ` \\\n  -H "Authorization: Bearer $RAYCLASSIFY_KEY"` : "";
  return `curl ${url("classify")} \\\n  -H 'Content-Type: application/json'${auth} \\\n  -d ${shell(JSON.stringify(body))}`;
}

function client(body, file) {
  const options = OPTIONS.filter((name) => name in body).map((name) => `, ${name}=${python(body[name])}`);
  const auth = key.get() ? ', key=os.environ["RAYCLASSIFY_KEY"]' : "";
  const imports = [...(file ? ["import csv"] : []), ...(auth ? ["import os"] : [])];
  const head = `${imports.length ? `${imports.join("\n")}\n\n` : ""}from rayclassify_client import Client\n\n`;
  const open = `with Client(${python(url())}${auth}${options.join("")}) as client`;
  if (file) {
    const read = `open(${python(file.name)}, encoding="utf-8-sig", newline="") as file`;
    return `${head}${open}, ${read}:\n    texts = (row[${python(file.column)}] for row in csv.DictReader(file))\n    for answer in client.classify_many(texts):\n        print(answer)`;
  }
  if (Array.isArray(body.text)) {
    return `${head}texts = ${python(body.text)}\n${open}:\n    for answer in client.classify_many(texts):\n        print(answer)`;
  }
  const pair = "text_pair" in body ? `, ${python(body.text_pair)}` : "";
  return `${head}${open}:\n    print(client.classify(${python(body.text)}${pair}))`;
}

function javascript(body, file) {
  const auth = key.get() ? "\n    Authorization: `Bearer ${process.env.RAYCLASSIFY_KEY}`," : "";
  const sent = file
    ? `{ ...${JSON.stringify({ ...body, text: undefined })}, text: texts } // texts: up to 1,024 of ${JSON.stringify(file.column)}`
    : JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
  return `const response = await fetch(${JSON.stringify(url("classify"))}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${auth}
  },
  body: JSON.stringify(${sent}${file ? "\n  " : ""}),
});
console.log(await response.json());`;
}
