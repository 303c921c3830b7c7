"use strict";
(() => {
  // Sorting: numbers by six digits, empty cells last.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") !== "descending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.sort;
        const compare = (a, b) => {
          if (a === "" || b === "") return (a === "") - (b === "");
          const numeric = !Number.isNaN(Number(a)) && !Number.isNaN(Number(b));
          const order = numeric ? Number(a) - Number(b) : a < b ? -1 : Number(a > b);
          return down ? -order : order;
        };
        const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)));
        table.tBodies[0].append(...rows);
      });
    });
  });

  // The browser of completions: model text only ever becomes text nodes.
  const source = document.getElementById("completions-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const [TEXT, SEED, SAMPLE, FINISH, TOKENS, VALUES] = [0, 1, 2, 3, 4, 5]; // places in a completion
  const $ = (id) => document.getElementById(id);
  const show = (text) =>
    String(text)
      .replace(/[\u0000-\u0008\u000b-\u001f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)))
      .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = show(text);
    return made;
  };
  const option = (value, text) => {
    const made = element("option", "", text);
    made.value = value;
    return made;
  };

  // Chunks are read when a prompt of theirs is asked for, and kept.
  const chunks = new Map();
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  function chunk(number) {
    if (!chunks.has(number)) {
      const text = $(`completions-${number}`).textContent;
      chunks.set(number, (data.packed ? unpacked(text) : Promise.resolve(text)).then(JSON.parse));
    }
    return chunks.get(number);
  }
  async function completions(method, place) {
    const found = await chunk(Math.floor(place / data.chunk));
    const seed = $("seed").value;
    const all = (found[method] || [])[place % data.chunk] || [];
    return all.filter((one) => seed === "" || String(one[SEED]) === seed);
  }

  // Prompts in the list: those that match the search, in the order asked for.
  const gap = (place) => {
    const [a, b] = [$("left").value, $("right").value].map((method) => (data.means[method] || [])[place]);
    return a === null || b === null || a === undefined || b === undefined ? null : a - b;
  };
  async function matching(words) {
    const all = data.prompts.map((_, place) => place);
    if (!words) return all;
    const holds = (text) => text.toLowerCase().includes(words);
    const found = [];
    for (const place of all) {
      const texts = [data.prompts[place].text];
      for (const side of ["left", "right"]) {
        texts.push(...(await completions($(side).value, place)).map((one) => one[TEXT]));
      }
      if (texts.some(holds)) found.push(place);
    }
    return found;
  }
  let asked = 0; // of several searches under way only the last one may draw
  async function fillPrompts() {
    const mine = ++asked;
    const places = await matching($("search").value.trim().toLowerCase());
    if (mine !== asked) return;
    const order = $("order").value;
    const known = order === "given" ? places : places.filter((place) => gap(place) !== null);
    if (order !== "given") {
      const sign = order === "left" ? -1 : 1;
      known.sort((x, y) => sign * (gap(x) - gap(y)));
    }
    const chosen = order === "given" ? $("prompt").value : "";
    $("prompt").replaceChildren(...known.map((place) => {
      const text = data.prompts[place].text.replace(/\s+/g, " ").slice(0, 90) || data.prompts[place].id;
      const by = order === "given" ? "" : `${gap(place) > 0 ? "+" : ""}${gap(place).toFixed(2)}  `;
      return option(place, by + text);
    }));
    if (known.includes(Number(chosen)) && chosen !== "") $("prompt").value = chosen;
    const [count, all] = [known.length, data.prompts.length];
    $("found").textContent = `${count} of ${all} prompts`;
    await draw();
  }

  function completion(one) {
    const box = element("div", "completion");
    const text = element("div", "text", one[TEXT] === "" ? "(empty)" : one[TEXT]);
    text.dir = "auto";
    const ended = one[FINISH] === "length" ? "cut off at the limit" : "finished";
    const facts = element("div", "scores", `seed ${one[SEED]}, sample ${one[SAMPLE]}, ${one[TOKENS] ?? "?"} tokens, ${ended}`);
    const scores = element("div", "scores");
    data.metrics.forEach((metric, place) => {
      const value = one[VALUES][place];
      if (value === null) return;
      const score = element("span", metric === data.main ? "main" : "", `${metric} `);
      score.append(element("b", "", value));
      scores.append(score);
    });
    box.append(text, facts, scores);
    return box;
  }
  let drawing = 0;
  async function draw() {
    const mine = ++drawing;
    const place = $("prompt").value === "" ? -1 : Number($("prompt").value);
    const found = await Promise.all(["left", "right"].map((side) => (place < 0 ? [] : completions($(side).value, place))));
    if (mine !== drawing) return;
    $("prompt-text").textContent = place < 0 ? "No prompt matches." : show(data.prompts[place].text);
    ["left", "right"].forEach((side, i) => {
      const column = $(`${side}-completions`);
      column.replaceChildren(element("h3", "", $(side).value), ...found[i].map(completion));
      if (!found[i].length) column.append(element("p", "absent", "No completion of this prompt."));
    });
  }
  function step(by) {
    const list = $("prompt");
    if (!list.options.length) return;
    list.selectedIndex = (list.selectedIndex + by + list.options.length) % list.options.length;
    draw();
  }

  ["left", "right"].forEach((side) => $(side).append(...data.methods.map((method) => option(method, method))));
  const baseline = data.methods.findIndex((method) => method.split("/").pop() === "sft");
  $("left").selectedIndex = Math.max(0, baseline);
  const last = data.methods.length - 1;
  $("right").selectedIndex = last === $("left").selectedIndex ? 0 : last;
  let pause;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(fillPrompts, 200);
  });
  ["left", "right", "order", "seed"].forEach((id) => $(id).addEventListener("change", fillPrompts));
  $("prompt").addEventListener("change", draw);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  fillPrompts();
})();
