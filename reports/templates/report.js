"use strict";
(() => {
  // Sorting: numbers by their full value, empty cells last.
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
  const $ = (id) => document.getElementById(id);
  const show = (text) =>
    String(text)
      .replace(/[\u0000-\u0008\u000b-\u001f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)))
      .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    if (text !== undefined) made.textContent = show(text);
    return made;
  };
  const option = (value, text) => {
    const made = element("option", "", text);
    made.value = value;
    return made;
  };
  const of = (method, prompt) => (data.completions[method] || {})[prompt] || [];
  const main = data.methods.some((method) => data.prompts.some((one) => of(method, one.id).some((c) => "gold" in c.scores)))
    ? "gold" : "proxy_reward";
  const mean = (method, prompt) => {
    const values = of(method, prompt).map((one) => one.scores[main]).filter((value) => value !== undefined);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0;
  };

  function fillPrompts() {
    const chosen = $("prompt").value;
    const [a, b] = [$("left").value, $("right").value];
    const gap = (one) => mean(a, one.id) - mean(b, one.id);
    const orders = { given: () => 0, left: (x, y) => gap(y) - gap(x), right: (x, y) => gap(x) - gap(y) };
    const prompts = [...data.prompts].sort(orders[$("order").value]);
    $("prompt").replaceChildren(...prompts.map((one) => option(one.id, one.text.replace(/\s+/g, " ").slice(0, 90) || one.id)));
    if (chosen && $("order").value === "given") $("prompt").value = chosen;
  }

  function completion(one) {
    const box = element("div", "completion");
    const text = element("div", "text", one.text === "" ? "(empty)" : one.text);
    text.dir = "auto";
    const facts = element("div", "scores");
    facts.append(`seed ${one.seed}, sample ${one.sample}, ${one.tokens ?? "?"} tokens, `,
      one.finish === "length" ? "cut off at the limit" : "finished");
    const scores = element("div", "scores");
    Object.keys(one.scores).sort().forEach((metric) => {
      const score = element("span", "", `${metric} `);
      score.append(element("b", "", one.scores[metric]));
      scores.append(score);
    });
    box.append(text, facts, scores);
    return box;
  }

  function draw() {
    const id = $("prompt").value;
    const prompt = data.prompts.find((one) => one.id === id);
    $("prompt-text").textContent = prompt ? show(prompt.text) : "";
    ["left", "right"].forEach((side) => {
      const found = of($(side).value, id);
      const column = $(`${side}-completions`);
      column.replaceChildren(element("h3", "", $(side).value), ...found.map(completion));
      if (!found.length) column.append(element("p", "absent", "No completion of this prompt."));
    });
  }

  function step(by) {
    const list = $("prompt");
    list.selectedIndex = (list.selectedIndex + by + list.options.length) % list.options.length;
    draw();
  }

  ["left", "right"].forEach((side) => $(side).append(...data.methods.map((method) => option(method, method))));
  const baseline = data.methods.findIndex((method) => method.split("/").pop() === "sft");
  $("left").selectedIndex = Math.max(0, baseline);
  const last = data.methods.length - 1;
  $("right").selectedIndex = last === $("left").selectedIndex ? 0 : last;
  ["left", "right", "order"].forEach((id) => $(id).addEventListener("change", () => { fillPrompts(); draw(); }));
  $("prompt").addEventListener("change", draw);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  fillPrompts();
  draw();
})();
