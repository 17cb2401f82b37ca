// CSV in pieces: RFC 4180, with the separators and encodings that spreadsheets write.
const MOST_PENDING = 4_000_000; // characters of one row
const SNIFFED_BYTES = 65_536;

/** Pieces of a CSV → rows of fields. */
export class Rows {
  #separator;
  #pending = "";
  #from = 0;
  #quoted = false;

  constructor(separator) {
    this.#separator = separator;
  }

  /** The rows that this piece ends. Raises RangeError where one has no end. */
  push(piece) {
    this.#pending += piece;
    const rows = [];
    let start = 0;
    let i = this.#from;
    for (; i < this.#pending.length; i += 1) {
      const one = this.#pending[i];
      if (one === '"') this.#quoted = !this.#quoted;
      else if (one === "\n" && !this.#quoted) {
        rows.push(this.#fields(this.#pending.slice(start, i)));
        start = i + 1;
      }
    }
    this.#pending = this.#pending.slice(start);
    this.#from = this.#pending.length;
    if (this.#pending.length > MOST_PENDING) throw new RangeError("a row has no end");
    return rows.filter((row) => row !== null);
  }

  /** The last row, if no line end stands after it. */
  end() {
    if (this.#quoted) throw new RangeError("a quote has no end");
    const row = this.#fields(this.#pending);
    return row === null ? [] : [row];
  }

  #fields(line) {
    if (line.endsWith("\r")) line = line.slice(0, -1);
    if (line === "") return null;
    const fields = [];
    let start = 0;
    let quoted = false;
    for (let i = 0; i <= line.length; i += 1) {
      if (line[i] === '"') quoted = !quoted;
      else if (i === line.length || (line[i] === this.#separator && !quoted)) {
        const field = line.slice(start, i);
        fields.push(field.startsWith('"') ? field.slice(1, field.endsWith('"') ? -1 : undefined).replaceAll('""', '"') : field);
        start = i + 1;
      }
    }
    return fields;
  }
}

export const written = (fields) =>
  `${fields.map((one) => (/["\n\r,]/.test(one) ? `"${one.replaceAll('"', '""')}"` : one)).join(",")}\r\n`;

/** A file's rows, some at a time, with how many bytes were read: {rows, bytes}. */
export async function* readRows(file) {
  const head = new Uint8Array(await file.slice(0, SNIFFED_BYTES).arrayBuffer());
  const encoding = encodingOf(head);
  const rows = new Rows(separatorOf(new TextDecoder(encoding).decode(head)));
  const decoder = new TextDecoder(encoding);
  const reader = file.stream().getReader();
  let bytes = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      bytes += value.length;
      yield { rows: rows.push(decoder.decode(value, { stream: true })), bytes };
    }
    yield { rows: [...rows.push(decoder.decode()), ...rows.end()], bytes };
  } finally {
    reader.cancel();
  }
}

function encodingOf(head) {
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le";
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
    return "utf-8";
  } catch {
    return "gb18030"; // what Excel writes on a Chinese Windows
  }
}

function separatorOf(text) {
  const line = text.split("\n", 1)[0].replaceAll(/"[^"]*"/g, "");
  const count = (one) => line.split(one).length;
  return [",", ";", "\t"].reduce((best, one) => (count(one) > count(best) ? one : best));
}
