// Shows what the worker finds. Everything is readable without this file; nothing here is made of strings of markup.
const proof = document.getElementById("proof");
const PENDING_MAX = 20000; // more entries are hashed when somebody asks for it

const policy = globalThis.trustedTypes?.createPolicy("tracewire", {
  createScriptURL: (url) => { if (url !== "/audit/worker.js") throw new TypeError("not ours"); return url; },
});

function say({ state, text }) {
  const item = document.createElement("li");
  item.className = `claim ${state}`;
  item.textContent = text;
  document.getElementById("claims").append(item);
}

function start(message, keep) {
  const worker = new Worker(policy ? policy.createScriptURL("/audit/worker.js") : "/audit/worker.js");
  const bar = document.getElementById("progress");
  document.getElementById("browser").remove();
  worker.onmessage = ({ data }) => {
    if (data.claim) say(data.claim);
    if (data.keep) keep(data.keep);
    if (data.total && bar) { bar.hidden = false; bar.max = data.total; bar.value = data.done; }
    if (data.end) { if (bar) bar.hidden = true; proof.dataset.state = "done"; worker.terminate(); }
  };
  worker.onerror = () => { say({ state: "unknown", text: "The verifying part of this page did not start." }); proof.dataset.state = "done"; };
  worker.postMessage(message);
}

function ledger({ base, origin, ed25519, witnesses }) {
  const place = `tracewire ${origin} ${ed25519}`;
  const seen = JSON.parse(localStorage.getItem(place) ?? "null");
  const total = Number(document.querySelector("[data-entries]").dataset.entries);
  const go = () => start(
    { base, origin, vkey: ed25519, witnesses: witnesses.split(" ").filter(Boolean), seen },
    (found) => localStorage.setItem(place, JSON.stringify(found)),
  );
  if (total - (seen?.size ?? 0) <= PENDING_MAX) { go(); return; }
  const button = document.getElementById("hash");
  button.hidden = false;
  button.textContent = `Hash ${total - (seen?.size ?? 0)} new entries in this browser`;
  document.getElementById("browser").textContent = "This browser has not hashed the entries yet.";
  button.onclick = () => { button.hidden = true; go(); };
}

if (proof?.dataset.note) {
  const { origin, ed25519, note, index, size, path } = proof.dataset;
  start({
    origin, vkey: ed25519, noteText: note, text: document.getElementById("raw").textContent, index: Number(index), size: Number(size),
    path: path.split(" ").filter(Boolean),
  });
} else if (proof) ledger(proof.dataset);
