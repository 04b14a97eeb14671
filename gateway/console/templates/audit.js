// Shows what the worker finds. Everything is readable without this file; nothing here is made of strings of markup.
const proof = document.getElementById("proof");
const PENDING_MAX = 20000; // more entries are hashed when somebody asks for it
const WORDS = { ok: "Holds:", wrong: "Wrong:", unknown: "Not known:" };

const policy = globalThis.trustedTypes?.createPolicy("tracewire", {
  createScriptURL: (url) => { if (url !== "/audit/worker.js") throw new TypeError("not ours"); return url; },
});

function say({ state, text }) {
  const item = document.createElement("li");
  item.className = `claim ${state}`;
  const word = document.createElement("b");
  word.textContent = WORDS[state];
  item.append(word, ` ${text}`);
  document.getElementById("claims").append(item);
  return item;
}

function start(message, keep) {
  const bar = document.getElementById("progress");
  document.getElementById("browser")?.remove();
  delete proof.dataset.state;
  const worker = new Worker(policy ? policy.createScriptURL("/audit/worker.js") : "/audit/worker.js");
  worker.onmessage = ({ data }) => {
    if (data.claim) say(data.claim);
    if (data.keep) keep(data.keep);
    if (data.total && bar) { bar.hidden = false; bar.max = data.total; bar.value = data.done; }
    if (data.end) {
      if (message.unhashed) say({ state: "unknown", text: "This browser has not hashed the entries yet." }).id = "browser";
      if (bar) bar.hidden = true;
      proof.dataset.state = "done";
      worker.terminate();
    }
  };
  worker.onerror = () => { say({ state: "unknown", text: "The verifying part of this page did not start." }); proof.dataset.state = "done"; };
  worker.postMessage(message);
}

const place = ({ origin }) => `tracewire ${origin}`;
const kept = (found) => JSON.parse(localStorage.getItem(place(found)) ?? "null");

function recall(found) {
  try {
    const seen = kept(found);
    if (!seen || seen.ed25519 === found.ed25519) return seen;
    say({ state: "wrong", text: "This browser saw this ledger under another key before, and a ledger never changes its keys." });
  } catch {
    say({ state: "unknown", text: "This browser cannot remember what it saw, or what it kept is damaged." });
  }
  return null;
}

// What both kinds of pages give the worker.
function given(found) {
  const seen = recall(found);
  return {
    base: found.base, origin: found.origin, vkeys: [found.ed25519, found.mldsa44], noteText: found.note, witnessedText: found.witnessed,
    witnesses: found.witnesses.split(" ").filter(Boolean), seen: seen?.size ? seen : null, linked: seen?.linked,
  };
}

function ledger(page) {
  const keep = (found) => {
    try {
      const before = kept(page) ?? { ed25519: page.ed25519, size: 0 };
      const size = (found.linked ?? found).size;
      if (before.ed25519 !== page.ed25519 || before.size > size || before.linked?.size > size) return;
      localStorage.setItem(place(page), JSON.stringify({ ...(found.linked && before), ...found, ed25519: page.ed25519 }));
    } catch { /* said by recall */ }
  };
  const told = given(page);
  const go = (again) => start({ ...told, again }, keep);
  const button = document.getElementById("hash");
  button.hidden = false;
  button.onclick = () => {
    button.hidden = true;
    document.getElementById("proof-title").focus();
    go(true);
  };
  if (Number(page.entries) - (told.seen?.size ?? 0) <= PENDING_MAX) go(false);
  else start({ ...told, unhashed: true }, keep); // signatures, witnesses, and whether there is less than was seen
}

try {
  if (proof?.dataset.index) {
    const { index, size, path } = proof.dataset;
    start({
      ...given(proof.dataset), text: document.getElementById("raw").textContent, index: Number(index), size: Number(size),
      path: path.split(" ").filter(Boolean),
    });
  } else if (proof) ledger(proof.dataset);
} catch (error) {
  say({ state: "unknown", text: `This browser verified nothing: ${error.message}` });
  proof.dataset.state = "done";
}
