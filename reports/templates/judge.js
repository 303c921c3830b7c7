"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const base = location.pathname.replace(/\/?$/, "/");
  const PLACE = `alignarena ${base}`; // where verdicts wait that the server has not confirmed: a closed tab loses none
  const LONGEST_WAIT = 4000;
  let state = null; // what the server said last
  let unsent = JSON.parse(localStorage.getItem(PLACE) || "[]");
  let sending = false;
  let shown = null; // the pair on the page
  let trouble = "";

  const keep = () => localStorage.setItem(PLACE, JSON.stringify(unsent));
  const pause = (tries) => new Promise((go) => setTimeout(go, Math.min(LONGEST_WAIT, 250 * 2 ** tries)));

  // The state once the server has a verdict; nothing changes where it has it already.
  function after({ done, total, pairs, judged }, { pair, verdict }) {
    const one = [...pairs, ...judged].find((other) => other.pair === pair);
    if (!one) return { done, total, pairs, judged };
    const others = (list) => list.filter((other) => other.pair !== pair);
    const before = done - (others(judged).length < judged.length);
    return verdict === null
      ? { done: before, total, pairs: [one, ...others(pairs)], judged: others(judged) }
      : { done: before + 1, total, pairs: others(pairs), judged: [...others(judged), one] };
  }
  const now = () => unsent.reduce(after, state);

  async function ask(what, body) {
    const sent = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    for (let tries = 0; ; tries += 1) {
      try {
        const reply = await fetch(base + what, { cache: "no-store", signal: AbortSignal.timeout(15000), ...sent });
        if (reply.ok) {
          trouble = "";
          return await reply.json();
        }
        if (reply.status === 400) return null; // the run has no such pair any more
        trouble = reply.status === 403
          ? "This address is no longer valid: open the one that the terminal shows."
          : "The verdict cannot be written; see the terminal.";
      } catch {
        trouble = "No connection; start the same command again.";
      }
      draw();
      await pause(tries);
    }
  }

  async function send() {
    if (sending) return;
    sending = true;
    while (unsent.length) {
      const reply = await ask("verdict", unsent[0]);
      unsent.shift();
      keep();
      state = reply || (await ask("state"));
      draw();
    }
    sending = false;
  }

  function judge(pair, verdict) {
    unsent.push({ pair, verdict });
    keep();
    draw();
    send();
  }
  const choose = (verdict) => shown && judge(shown, verdict);
  const undo = () => {
    const last = state && now().judged.at(-1);
    if (last) judge(last.pair, null);
  };

  function write(id, text) {
    $(id).textContent = text === "" ? "(empty)" : text;
    $(id).classList.toggle("absent", text === "");
  }

  function draw() {
    const waiting = unsent.length ? `${unsent.length} not saved yet, kept in this browser. ` : "";
    $("trouble").textContent = trouble && `${waiting}${trouble}`;
    if (!state) return;
    const { done, total, pairs, judged } = now();
    const one = pairs[0];
    $("progress").max = total || 1;
    $("progress").value = done;
    $("told").textContent = `${done} of ${total} judged`;
    $("asked").hidden = !one;
    $("idle").hidden = Boolean(one);
    $("idle").textContent = done < total
      ? "The next pairs come when the server answers."
      : "All pairs are judged. The terminal counts them in a few seconds; Undo takes the last one back.";
    for (const name of ["first", "tie", "second"]) $(`choose-${name}`).disabled = !one;
    $("undo").disabled = !judged.length;
    if (shown === (one ? one.pair : null)) return;
    shown = one ? one.pair : null;
    if (!one) return;
    for (const name of ["prompt", "first", "second"]) write(name, one[name]);
    scrollTo(0, 0);
  }

  // The second click of a double click would judge a pair that nobody has read; so would a key that is held down.
  const onClick = (id, act) => $(id).addEventListener("click", (event) => event.detail < 2 && act());
  for (const name of ["first", "tie", "second"]) onClick(`choose-${name}`, () => choose(name));
  onClick("undo", undo);
  const KEYS = { 1: () => choose("first"), 2: () => choose("second"), 0: () => choose("tie"), u: undo };
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = KEYS[event.key.toLowerCase()];
    if (act) act();
  });

  (async () => {
    state = await ask("state");
    draw();
    send();
  })();
})();
