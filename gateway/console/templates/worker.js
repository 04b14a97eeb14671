// Recomputes a ledger from its entries (RFC 6962, C2SP tlog-tiles) and verifies its checkpoint, in the auditor's browser.
const WIDTH = 256;
const AT_ONCE = 8; // bundles fetched together

const utf8 = new TextEncoder();
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const textOf = (bytes) => btoa(String.fromCharCode(...bytes));
const same = (a, b) => a.length === b.length && a.every((byte, n) => byte === b[n]);

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
const sha256 = async (data) => new Uint8Array(await crypto.subtle.digest("SHA-256", data));
const leaf = (entry) => sha256(joined(new Uint8Array([0]), entry));
const node = (left, right) => sha256(joined(new Uint8Array([1]), left, right));

// The perfect subtrees of a growing tree, largest first: enough to append, and to know the root.
class Edge {
  constructor(size, hashes) { this.size = size; this.hashes = hashes; }

  async push(hash, width) {
    this.hashes.push(hash);
    this.size += width;
    for (let n = width; (this.size / n) % 2 === 0; n *= 2) {
      const right = this.hashes.pop();
      this.hashes.push(await node(this.hashes.pop(), right));
    }
  }

  async root() {
    if (!this.size) return sha256(new Uint8Array());
    let found = this.hashes.at(-1);
    for (const left of this.hashes.slice(0, -1).reverse()) found = await node(left, found);
    return found;
  }
}

function parseKey(text) { // a C2SP verifier key: name+id+base64(type || key)
  const [name, id, ...rest] = text.split("+");
  const data = bytesOf(rest.join("+"));
  return { name, id, type: data[0], key: data.slice(1) };
}

function parseNote(text) {
  const end = text.lastIndexOf("\n\n"); // as C2SP signed-note cuts it
  const body = text.slice(0, end + 1);
  const [origin, size, root] = body.split("\n");
  const lines = text.slice(end + 2).split("\n").filter(Boolean).map((line) => line.replace(/^— /, "").split(" "));
  return { body, origin, size: Number(size), root: bytesOf(root), lines: lines.map(([name, data]) => ({ name, data: bytesOf(data) })) };
}

// true, false, or null where there is no such line; throws where this browser has no Ed25519.
async function signed(note, key) {
  const id = [0, 2, 4, 6].map((at) => parseInt(key.id.slice(at, at + 2), 16));
  const line = note.lines.find((each) => each.name === key.name && same(each.data.slice(0, 4), id));
  if (!line) return null;
  let [message, signature] = [note.body, line.data.slice(4)];
  if (key.type === 4) { // a cosignature: its time comes first
    const time = signature.slice(0, 8).reduce((sum, byte) => sum * 256 + byte, 0);
    [message, signature] = [`cosignature/v1\ntime ${time}\n${note.body}`, signature.slice(8)];
  }
  const imported = await crypto.subtle.importKey("raw", key.key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, utf8.encode(message));
}

const claim = (state, text) => postMessage({ claim: { state, text } });

async function fetched(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  return response;
}

function tilePath(index, width) {
  const digits = String(index).padStart(Math.ceil(String(index).length / 3) * 3, "0");
  const groups = digits.match(/\d{3}/g);
  const name = [...groups.slice(0, -1).map((group) => `x${group}`), groups.at(-1)].join("/");
  return `tile/entries/${name}${width === WIDTH ? "" : `.p/${width}`}`;
}

function entriesOf(data) {
  const found = [];
  for (let at = 0; at < data.length;) {
    const length = data[at] * 256 + data[at + 1];
    if (at + 2 + length > data.length) throw new Error("a bundle is cut short");
    found.push(data.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return found;
}

// "ok", "wrong", or "unknown" where this browser cannot tell.
async function checkNote(note, origin, vkey) {
  let state = "ok";
  if (note.origin !== origin) { claim("wrong", `The checkpoint is of ${note.origin}.`); return "wrong"; }
  try {
    if (!await signed(note, parseKey(vkey))) { claim("wrong", "The ledger's own signature (Ed25519) does not hold."); return "wrong"; }
    claim("ok", "The checkpoint carries the ledger's own signature (Ed25519).");
  } catch {
    claim("unknown", "This browser cannot verify Ed25519: use tracewire ledger verify.");
    state = "unknown";
  }
  claim("unknown", "No browser can verify the second, post-quantum signature (ML-DSA-44) yet: tracewire audit serve, tracewire ledger verify and the independent verifier do.");
  return state;
}

async function checkLedger({ base, origin, vkey, noteText, witnessedText, witnesses, seen, again }) {
  const note = parseNote(noteText);
  const state = await checkNote(note, origin, vkey);
  if (state === "wrong") return;
  if (seen && seen.size > note.size) {
    claim("wrong", `This browser has seen ${seen.size} entries of this ledger; now it has ${note.size}. Entries were taken away.`);
    return;
  }
  const cosigned = await cosignatures(witnessedText, origin, vkey, witnesses);
  if (cosigned && cosigned.size > note.size) {
    claim("wrong", `${cosigned.names.join(", ")} cosigned ${cosigned.size} entries; now there are ${note.size}. Entries were taken away.`);
    return;
  }
  const whole = again || !seen || (cosigned && cosigned.size < seen.size && !seen.marks?.[cosigned.size]);
  const edge = whole ? new Edge(0, []) : new Edge(seen.size, seen.hashes.map(bytesOf));
  let shown = 0;
  const start = edge.size;
  const roots = {}; // those of sizes that are asked for, computed in passing
  const marks = [cosigned?.size, seen?.size].filter((size) => size > start);
  const mark = async () => { if (marks.includes(edge.size)) roots[edge.size] = await edge.root(); };
  for (let first = Math.floor(start / WIDTH); first * WIDTH < note.size; first += AT_ONCE) {
    const wanted = [];
    for (let n = first; n < first + AT_ONCE && n * WIDTH < note.size; n++) wanted.push(n);
    const bundles = await Promise.all(wanted.map(async (n) =>
      entriesOf(new Uint8Array(await (await fetched(`${base}/${tilePath(n, Math.min(WIDTH, note.size - n * WIDTH))}`)).arrayBuffer()))));
    for (const [at, bundle] of bundles.entries()) {
      const from = edge.size - wanted[at] * WIDTH;
      const leaves = await Promise.all(bundle.slice(from).map(leaf));
      if (leaves.length === WIDTH && !marks.some((size) => size > edge.size && size < edge.size + WIDTH)) {
        let level = leaves;
        while (level.length > 1) level = await Promise.all(level.filter((_, n) => n % 2 === 0).map((left, n) => node(left, level[2 * n + 1])));
        await edge.push(level[0], WIDTH);
        await mark();
      } else {
        for (const each of leaves) {
          await edge.push(each, 1);
          await mark();
        }
      }
    }
    if (edge.size - shown >= 1024 || edge.size === note.size) { shown = edge.size; postMessage({ done: edge.size - start, total: note.size - start }); }
  }
  const root = await edge.root();
  const other = seen && whole && textOf(roots[seen.size] ?? root) !== seen.root;
  if (edge.size !== note.size || !same(root, note.root) || other) {
    claim("wrong", seen
      ? `The ${seen.size} entries that this browser saw on ${seen.at} and those since do not give the signed root: this is another history.`
      : "The entries do not give the root that was signed.");
    return;
  }
  const named = state === "ok" ? "signed root" : "root that the checkpoint names";
  if (whole) {
    claim("ok", `All ${note.size} entries were hashed in this browser; together they give the ${named}.`);
    if (seen) claim("ok", `They are those that this browser saw on ${seen.at}, and what came since.`);
  } else {
    claim("ok", `${note.size - start} new entries were hashed in this browser; with the ${start} that it hashed by ${seen.at}, and has not read again, they give the ${named}.`);
  }
  if (cosigned) {
    const here = roots[cosigned.size] ?? (cosigned.size === note.size ? root : bytesOf(seen?.marks?.[cosigned.size] ?? (cosigned.size === seen?.size ? seen.root : "")));
    const who = cosigned.names.join(", ");
    if (same(here, cosigned.root)) claim("ok", `${who} cosigned this very history at size ${cosigned.size}.`);
    else claim("wrong", `${who} cosigned another history at size ${cosigned.size}.`);
    roots[cosigned.size] = here;
  }
  if (state !== "ok") return; // nothing is remembered by an unverified word
  const kept = Object.fromEntries(Object.entries(roots).map(([size, hash]) => [size, textOf(hash)]));
  postMessage({ keep: { size: edge.size, root: textOf(root), hashes: edge.hashes.map(textOf), marks: kept, at: new Date().toISOString() } });
}

// The checkpoint that others cosigned, with who really did; null where nobody did.
async function cosignatures(text, origin, vkey, witnesses) {
  if (!text) return null;
  const names = [];
  try {
    const note = parseNote(text);
    if (note.origin !== origin || !await signed(note, parseKey(vkey))) throw new Error("it is not of this ledger");
    for (const each of witnesses) {
      const key = parseKey(each);
      if (await signed(note, key)) names.push(key.name);
    }
    return names.length ? { size: note.size, root: note.root, names } : null;
  } catch (error) {
    if (error.name !== "NotSupportedError") claim("wrong", `What others are said to have cosigned cannot be read: ${error.message}.`);
    return null; // without Ed25519 it was said above that nothing is verified
  }
}

async function checkEntry({ origin, vkey, noteText, text, index, size, path }) {
  const note = parseNote(noteText);
  const state = await checkNote(note, origin, vkey);
  if (state === "wrong") return;
  let hash = await leaf(utf8.encode(text));
  let [fn, sn] = [index, note.size - 1];
  for (const each of path.map(bytesOf)) { // RFC 9162 section 2.1.3.2
    if (sn === 0) { sn = -1; break; }
    if (fn % 2 || fn === sn) {
      hash = await node(each, hash);
      while (fn && fn % 2 === 0) { fn = Math.floor(fn / 2); sn = Math.floor(sn / 2); }
    } else hash = await node(hash, each);
    fn = Math.floor(fn / 2); sn = Math.floor(sn / 2);
  }
  const holds = sn === 0 && note.size === size && same(hash, note.root);
  claim(holds ? "ok" : "wrong", holds ? `These very bytes lie under the ${state === "ok" ? "signed root" : "root that the checkpoint names"}: hashed and climbed in this browser.` : "These bytes do not lead to the signed root.");
}

onmessage = async ({ data }) => {
  try {
    await (data.path ? checkEntry(data) : checkLedger(data));
  } catch (error) {
    claim("unknown", `It could not be verified: ${error.message}`);
  }
  postMessage({ end: true });
};
