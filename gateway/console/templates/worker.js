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

const KINDS = { // what a line of each type signs, and how (C2SP signed-note, tlog-cosignature); its time comes first but for 1
  1: { format: "raw", algorithm: { name: "Ed25519" }, message: (note) => utf8.encode(note.body) },
  4: { format: "raw", algorithm: { name: "Ed25519" }, message: (note, key, time) => utf8.encode(`cosignature/v1\ntime ${number(time)}\n${note.body}`) },
  6: { format: "raw-public", algorithm: { name: "ML-DSA-44" }, message: (note, key, time) => joined(
    utf8.encode("subtree/v1\n\0"), short(key.name), time, short(note.origin), new Uint8Array(8), big(note.size), note.root) },
};
const number = (bytes) => bytes.reduce((sum, byte) => sum * 256 + byte, 0);
const big = (value) => Uint8Array.from({ length: 8 }, (_, n) => Math.floor(value / 256 ** (7 - n)) % 256);
const short = (text) => joined(new Uint8Array([utf8.encode(text).length]), utf8.encode(text));

function lineOf(note, key) {
  const id = [0, 2, 4, 6].map((at) => parseInt(key.id.slice(at, at + 2), 16));
  return note.lines.find((each) => each.name === key.name && same(each.data.slice(0, 4), id));
}

// true, false, or null where there is no such line; throws NotSupportedError where this browser has no such algorithm.
async function signed(note, key) {
  const line = lineOf(note, key), kind = KINDS[key.type];
  if (!line || !kind) return null;
  const [time, signature] = key.type === 1 ? [null, line.data.slice(4)] : [line.data.slice(4, 12), line.data.slice(12)];
  const imported = await crypto.subtle.importKey(kind.format, key.key, kind.algorithm, false, ["verify"]);
  return crypto.subtle.verify(kind.algorithm, imported, signature, kind.message(note, key, time));
}

// As `signed`; undefined where this browser has no ML-DSA.
const signedIfKnown = (note, key) => signed(note, key).catch((error) => {
  if (error.name !== "NotSupportedError" || key.type !== 6) throw error;
});

const claim = (state, text) => postMessage({ claim: { state, text } });

class Wrong extends Error {} // what cannot be an accident of the network

async function fetched(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (response.status === 404) throw new Wrong(`${url.split("/tile/")[1]} is not there, though the checkpoint says so`);
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

function tilePath(level, index, width) {
  const digits = String(index).padStart(Math.ceil(String(index).length / 3) * 3, "0");
  const groups = digits.match(/\d{3}/g);
  const name = [...groups.slice(0, -1).map((group) => `x${group}`), groups.at(-1)].join("/");
  return `tile/${level}/${name}${width === WIDTH ? "" : `.p/${width}`}`;
}

async function bundle(base, index, size) {
  const width = Math.min(WIDTH, size - index * WIDTH), data = await fetched(`${base}/${tilePath("entries", index, width)}`), found = [];
  for (let at = 0; at < data.length;) {
    const length = data[at] * 256 + data[at + 1];
    if (at + 2 + length > data.length) throw new Wrong(`the entry ${index * WIDTH + found.length} is cut short`);
    found.push(data.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  if (found.length !== width) throw new Wrong(`of the entries from ${index * WIDTH} on there are ${found.length}, not ${width}`);
  return found;
}

// Where entries and the lowest tiles differ first, which both come from the ledger's server; -1 where they agree.
async function firstOther(base, size) {
  for (let index = 0; index * WIDTH < size; index++) {
    const tile = await fetched(`${base}/${tilePath(0, index, Math.min(WIDTH, size - index * WIDTH))}`);
    const leaves = await Promise.all((await bundle(base, index, size)).map(leaf));
    const at = leaves.findIndex((each, n) => !same(each, tile.slice(32 * n, 32 * n + 32)));
    if (at >= 0) return index * WIDTH + at;
  }
  return -1;
}

const tiles = new Map(); // each is fetched once

// The hash of a perfect subtree, from the hash tiles of a tree of `size` entries.
async function subtree(base, height, index, size) {
  const level = Math.floor(height / 8), width = 2 ** (height % 8), tile = Math.floor(index * width / WIDTH), first = index * width % WIDTH;
  const url = `${base}/${tilePath(level, tile, Math.min(WIDTH, Math.floor(size / WIDTH ** level) - tile * WIDTH))}`;
  if (!tiles.has(url)) tiles.set(url, await fetched(url));
  const row = tiles.get(url);
  let hashes = Array.from({ length: width }, (_, n) => row.slice(32 * (first + n), 32 * (first + n + 1)));
  while (hashes.length > 1) hashes = await Promise.all(hashes.filter((_, n) => n % 2 === 0).map((left, n) => node(left, hashes[2 * n + 1])));
  return hashes[0];
}

// Appends to an edge the perfect subtrees up to `end`.
async function grow(edge, base, end, size) {
  while (edge.size < end) {
    let height = 0;
    while (edge.size % 2 ** (height + 1) === 0 && edge.size + 2 ** (height + 1) <= end) height++;
    await edge.push(await subtree(base, height, edge.size / 2 ** height, size), 2 ** height);
  }
}

// Whether this history begins with what this browser saw: no tiles give both roots where it does not. Then that is remembered.
async function goOn(base, note, state, before) {
  if (before && before.size < note.size) {
    const edge = new Edge(0, []);
    await grow(edge, base, before.size, note.size);
    const begins = textOf(await edge.root()) === before.root;
    if (begins) await grow(edge, base, note.size, note.size);
    if (!begins || !same(await edge.root(), note.root)) {
      claim("wrong", `Its tiles do not lead from the ${before.size} entries that this browser saw on ${before.at} to the signed root: this is another history, or they are not its own.`);
      return;
    }
  }
  if (before) claim("ok", `It begins with the ${before.size} entries that this browser saw on ${before.at}: its tiles lead from their root to the signed one.`);
  if (state === "ok") postMessage({ keep: { linked: { size: note.size, root: textOf(note.root), at: new Date().toISOString() } } });
}

// "ok", "wrong", or "unknown" where this browser cannot tell.
async function checkNote(note, origin, vkeys) {
  let state = "ok";
  if (note.origin !== origin) { claim("wrong", `The checkpoint is of ${note.origin}.`); return "wrong"; }
  for (const [key, name] of vkeys.map((each, n) => [parseKey(each), ["Ed25519", "ML-DSA-44, post-quantum"][n]])) {
    try {
      if (!await signed(note, key)) { claim("wrong", `The ledger's own signature (${name}) does not hold.`); return "wrong"; }
      claim("ok", `The checkpoint carries the ledger's own signature (${name}).`);
    } catch (error) {
      if (error.name !== "NotSupportedError") throw error;
      claim("unknown", `This browser cannot verify the signature by ${name}: tracewire audit serve, tracewire ledger verify and the independent verifier do.`);
      if (key.type === 1) state = "unknown";
    }
  }
  return state;
}

// Whether what this browser or others saw before is more than there is now, or other at the same size: then the reason.
function older(note, seen, cosigned) {
  const saw = seen ? [{ size: seen.size, root: bytesOf(seen.root), who: "This browser has seen" }] : [];
  for (const { size, root, who } of [...saw, ...(cosigned ? [{ ...cosigned, who: `${cosigned.names.join(", ")} cosigned` }] : [])]) {
    if (size > note.size) return `${who} ${size} entries of this ledger; now it has ${note.size}. Entries were taken away.`;
    if (size === note.size && !same(root, note.root)) return `${who} another history of ${size} entries.`;
  }
  return "";
}

const newest = (seen, linked) => (linked && linked.size > (seen?.size ?? 0) ? linked : seen); // hashed here, or its signature and beginning verified

async function checkLedger({ base, origin, vkeys, noteText, witnessedText, witnesses, seen, linked, again, unhashed }) {
  const note = parseNote(noteText);
  const state = await checkNote(note, origin, vkeys);
  if (state === "wrong") return;
  const cosigned = await cosignatures(witnessedText, origin, vkeys, witnesses);
  const last = newest(seen, linked), gone = older(note, last, cosigned);
  if (gone) { claim("wrong", gone); return; }
  if (unhashed) { await goOn(base, note, state, last); return; }
  const whole = again || !seen || (cosigned && cosigned.size < seen.size && !seen.marks?.[cosigned.size]);
  const edge = whole ? new Edge(0, []) : new Edge(seen.size, seen.hashes.map(bytesOf));
  let shown = 0;
  const start = edge.size;
  const roots = {}; // those of sizes that are asked for, computed in passing
  const marks = [cosigned?.size, seen?.size, linked?.size].filter((size) => size > start);
  const mark = async () => { if (marks.includes(edge.size)) roots[edge.size] = await edge.root(); };
  for (let first = Math.floor(start / WIDTH); first * WIDTH < note.size; first += AT_ONCE) {
    const wanted = [];
    for (let n = first; n < first + AT_ONCE && n * WIDTH < note.size; n++) wanted.push(n);
    const bundles = await Promise.all(wanted.map((n) => bundle(base, n, note.size)));
    for (const [at, entries] of bundles.entries()) {
      const from = edge.size - wanted[at] * WIDTH;
      const leaves = await Promise.all(entries.slice(from).map(leaf));
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
  const other = [seen, linked].some((each) => each && each.size > start && textOf(roots[each.size] ?? root) !== each.root);
  if (edge.size !== note.size || !same(root, note.root) || other) {
    const index = await firstOther(base, note.size).catch(() => -1);
    const where = index >= 0 ? `Entry ${index} is the first that is not the one of its tile.` : "Which entry it is cannot be told from here: their tiles say the same.";
    claim("wrong", last
      ? `The ${last.size} entries that this browser saw on ${last.at} and those since do not give the signed root: this is another history. ${where}`
      : `The entries do not give the root that was signed. ${where}`);
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
    if (same(here, cosigned.root)) claim("ok", `${who} cosigned this very history at size ${cosigned.size}${cosigned.at}.`);
    else claim("wrong", `${who} cosigned another history at size ${cosigned.size}.`);
    roots[cosigned.size] = here;
  }
  if (state !== "ok") return; // nothing is remembered by an unverified word
  const kept = Object.fromEntries(Object.entries(roots).map(([size, hash]) => [size, textOf(hash)]));
  postMessage({ keep: { size: edge.size, root: textOf(root), hashes: edge.hashes.map(textOf), marks: kept, at: new Date().toISOString() } });
}

// The checkpoint that others cosigned, with who really did; null where nobody did.
async function cosignatures(text, origin, vkeys, witnesses) {
  if (!text) return null;
  const holds = new Map(); // by witness: each key that is known of it
  let newest = 0, unread = false;
  try {
    const note = parseNote(text);
    const own = await Promise.all(vkeys.map((key) => signedIfKnown(note, parseKey(key))));
    if (note.origin !== origin || own.some((holding) => !holding && holding !== undefined)) throw new Error("it is not of this ledger");
    for (const key of witnesses.map(parseKey)) {
      const holding = await signedIfKnown(note, key);
      if (holding === undefined) unread = true;
      else holds.set(key.name, (holds.get(key.name) ?? true) && !!holding);
      if (key.type === 4 && holds.get(key.name)) newest = Math.max(newest, number(lineOf(note, key).data.slice(4, 12)));
    }
    if (unread) claim("unknown", "Of each witness this browser verifies the first signature (Ed25519) alone.");
    const names = [...holds].filter(([, all]) => all).map(([name]) => name);
    const at = newest ? `, last on ${new Date(newest * 1000).toISOString().slice(0, 16).replace("T", " at ")} UTC` : "";
    return names.length ? { size: note.size, root: note.root, names, at } : null;
  } catch (error) {
    if (error.name !== "NotSupportedError") claim("wrong", `What others are said to have cosigned cannot be read: ${error.message}.`);
    return null; // without Ed25519 it was said above that nothing is verified
  }
}

async function checkEntry({ origin, vkeys, noteText, witnessedText, witnesses, seen, linked, text, index, size, path }) {
  const note = parseNote(noteText);
  const state = await checkNote(note, origin, vkeys);
  if (state === "wrong") return;
  const gone = older(note, newest(seen, linked), await cosignatures(witnessedText, origin, vkeys, witnesses));
  if (gone) { claim("wrong", gone); return; }
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
  if (seen?.size === note.size) claim("ok", `It is the root of the ${seen.size} entries that this browser hashed on ${seen.at}.`);
  else claim("unknown", "Whether the signed root goes on from what this browser saw is told on the ledger's own page, where its entries are hashed.");
}

onmessage = async ({ data }) => {
  try {
    await (data.path ? checkEntry(data) : checkLedger(data));
  } catch (error) {
    claim(error instanceof Wrong ? "wrong" : "unknown", `It could not be verified: ${error.message}.`);
  }
  postMessage({ end: true });
};
