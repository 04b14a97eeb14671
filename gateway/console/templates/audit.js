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
    if (data.end) { if (bar) bar.hidden = true; proof.dataset.state = "done"; worker.terminate(); }
  };
  worker.onerror = () => { say({ state: "unknown", text: "The verifying part of this page did not start." }); proof.dataset.state = "done"; };
  worker.postMessage(message);
}

function ledger({ base, origin, ed25519, note, witnessed, witnesses, entries }) {
  const place = `tracewire ${origin} ${ed25519}`;
  const recall = () => {
    try {
      return JSON.parse(localStorage.getItem(place) ?? "null");
    } catch {
      say({ state: "unknown", text: "This browser cannot remember what it saw, or what it kept is damaged." });
      return null;
    }
  };
  const keep = (found) => {
    try {
      if ((recall()?.size ?? 0) <= found.size) localStorage.setItem(place, JSON.stringify(found));
    } catch { /* said by recall */ }
  };
  const seen = recall();
  const go = (again) => start({
    base, origin, vkey: ed25519, noteText: note, witnessedText: witnessed, witnesses: witnesses.split(" ").filter(Boolean), seen, again,
  }, keep);
  const button = document.getElementById("hash");
  button.hidden = false;
  button.onclick = () => {
    button.hidden = true;
    document.getElementById("proof-title").focus();
    go(true);
  };
  if (Number(entries) - (seen?.size ?? 0) <= PENDING_MAX) go(false);
  else document.getElementById("browser").lastChild.textContent = " This browser has not hashed the entries yet.";
}

try {
  if (proof?.dataset.index) {
    const { origin, ed25519, note, index, size, path } = proof.dataset;
    start({
      origin, vkey: ed25519, noteText: note, text: document.getElementById("raw").textContent, index: Number(index), size: Number(size),
      path: path.split(" ").filter(Boolean),
    });
  } else if (proof) ledger(proof.dataset);
} catch (error) {
  say({ state: "unknown", text: `This browser verified nothing: ${error.message}` });
  proof.dataset.state = "done";
}
