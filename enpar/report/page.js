// Leafs through the sentences of the page: filters, and each answer drawn with its entities and relations.
"use strict";
(() => {
  const PAGE = 20;
  const data = JSON.parse(document.getElementById("data").textContent);
  const types = [
    ...data.entity_types.map((label) => [0, label]),
    ...data.relation_types.map((label) => [1, label]),
  ]; // whether of a relation, and the label
  const symmetric = new Set(data.symmetric);
  const state = { kind: "any", model: -1, type: -1, page: 0 };

  // Text goes in as text, never as markup: a corpus may hold anything.
  function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // ---- filters ----

  const answersOf = (sentence) => sentence.answers.filter((_, i) => i > 0 && (state.model < 0 || i === state.model + 1));
  const itemsOf = (answer, relation) =>
    relation ? answer.relations.map(([label]) => label) : answer.entities.map(([, , label]) => label);

  function hasMistake(sentence, kind) {
    return answersOf(sentence).some((answer) =>
      answer.mistakes.some((mistake) => (kind === "any" || mistake[0] === kind) && isOfType(sentence, answer, mistake)),
    );
  }

  function isOfType(sentence, answer, [, relation, gold, predicted]) {
    if (state.type < 0) return true;
    const [ofRelation, label] = types[state.type];
    const labels = [itemsOf(sentence.answers[0], relation)[gold], itemsOf(answer, relation)[predicted]];
    return ofRelation === relation && labels.includes(label);
  }

  function hasType(sentence) {
    if (state.type < 0) return true;
    const [relation, label] = types[state.type];
    return [sentence.answers[0], ...answersOf(sentence)].some((answer) => itemsOf(answer, relation).includes(label));
  }

  const chosen = (kind) => data.sentences.filter((s) => (kind === "all" ? hasType(s) : hasMistake(s, kind)));

  function set(change) {
    Object.assign(state, { page: 0 }, change);
    show();
  }

  const kindNames = { all: "all sentences", any: "any mistake" };
  const chips = ["all", "any", ...data.kinds].map((kind) => {
    const chip = element("button", { type: "button", "data-kind": kind });
    chip.addEventListener("click", () => set({ kind }));
    return chip;
  });

  function select(name, groups, change) {
    const made = element("select", { name });
    for (const [label, options] of groups) {
      const choices = options.map(([value, text]) => element("option", { value }, text));
      if (label) made.append(element("optgroup", { label }, ...choices));
      else made.append(...choices);
    }
    made.addEventListener("change", () => set(change(Number(made.value))));
    return element("label", {}, name, made);
  }

  function typeGroup(relation) {
    return types.map(([r, label], i) => [i, label, r]).filter(([, , r]) => r === relation);
  }

  function makeFilters() {
    const filters = document.getElementById("filters");
    filters.append(element("div", { class: "chips", role: "group", "aria-label": "Kind of mistake" }, ...chips));
    const typeGroups = [["", [[-1, "any"]]], ["Entities", typeGroup(0)], ["Relations", typeGroup(1)]];
    filters.append(select("Type", typeGroups, (type) => ({ type })));
    if (data.models.length > 1) {
      const models = [[-1, "any"], ...data.models.map((name, i) => [i, name])];
      filters.append(select("Mistakes of", [["", models]], (model) => ({ model })));
    }
  }

  // ---- the list ----

  function show() {
    for (const chip of chips) {
      const kind = chip.dataset.kind;
      chip.replaceChildren(kindNames[kind] || kind, " ", element("small", {}, String(chosen(kind).length)));
      chip.setAttribute("aria-pressed", String(kind === state.kind));
    }
    const sentences = chosen(state.kind);
    const pages = Math.max(1, Math.ceil(sentences.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const some = sentences.slice(state.page * PAGE, (state.page + 1) * PAGE);
    document.getElementById("found").textContent = found(sentences.length);
    document.getElementById("list").replaceChildren(...some.map(article));
    for (const pager of document.querySelectorAll(".pager")) fillPager(pager, pages);
    drawArcs();
  }

  function found(count) {
    const cut = data.sentences.length < data.total;
    const rest = `This page holds ${data.sentences.length} of ${data.total}, those with mistakes first.`;
    return `${count} of ${data.total} sentences. ${cut ? rest : ""}`;
  }

  function fillPager(pager, pages) {
    const button = (name, page) => {
      const made = element("button", { type: "button", class: name.toLowerCase() }, name);
      made.disabled = page < 0 || page >= pages;
      made.addEventListener("click", () => {
        set({ page });
        document.getElementById("sentences").scrollIntoView();
      });
      return made;
    };
    const place = element("span", {}, `Page ${state.page + 1} of ${pages}`);
    pager.replaceChildren(button("Previous", state.page - 1), place, button("Next", state.page + 1));
  }

  function article(sentence) {
    const [gold, ...answers] = sentence.answers;
    const rows = answers.flatMap((answer, i) => [row(sentence, answer, data.models[i], i), mistakes(sentence, answer)]);
    return element("article", {}, element("h4", {}, sentence.name), row(sentence, gold, "gold", -1), ...rows);
  }

  // ---- an answer: the text with its entities, and arcs between them ----

  const arcs = new Map(); // of the rows shown: text element → relations with the elements they join

  function row(sentence, answer, name, model) {
    const wrong = [new Set(), new Set()]; // entities, relations
    for (const [, relation, , predicted] of answer.mistakes || []) wrong[relation].add(predicted);
    const text = element("p", { class: answer.relations.length ? "text related" : "text", dir: "auto" });
    const marks = fillText(text, sentence.tokens, answer.entities, wrong[0]);
    arcs.set(
      text,
      answer.relations.map(([label, head, tail], i) => ({
        label,
        head: marks[head],
        tail: marks[tail],
        wrong: wrong[1].has(i),
        words: words(sentence, answer, 1, i),
      })),
    );
    return element("div", { class: "row" }, element("b", { class: model < 0 ? "who" : `who m${model % 6}` }, name), text);
  }

  // Entities may lie within each other and even cross: one that has to close early is opened again behind the other.
  function fillText(text, tokens, entities, wrong) {
    const marks = [];
    const starting = new Map(); // the entities that start at each token, the longest first
    for (const [index, [start]] of entities.entries()) starting.set(start, [...(starting.get(start) || []), index]);
    for (const some of starting.values()) some.sort((a, b) => entities[b][1] - entities[a][1]);
    const open = []; // entities, the outermost first
    const inner = () => (open.length ? open[open.length - 1].mark : text);
    const begin = (index) => {
      const mark = element("mark", wrong.has(index) ? { class: "wrong" } : {});
      mark.style.setProperty("--hue", hue(entities[index][2]));
      inner().append(mark);
      marks[index] ||= mark;
      open.push({ index, mark });
    };
    for (let i = 0; i <= tokens.length; i++) {
      const first = open.findIndex(({ index }) => entities[index][1] === i);
      const closed = first < 0 ? [] : open.splice(first);
      for (const { index, mark } of closed) if (entities[index][1] === i) mark.append(element("small", {}, entities[index][2]));
      if (i === tokens.length) break;
      if (i > 0) inner().append(" ");
      for (const { index } of closed) if (entities[index][1] > i) begin(index);
      for (const index of starting.get(i) || []) begin(index);
      inner().append(tokens[i]);
    }
    return marks;
  }

  // The golden angle keeps neighbours apart, however many types there are.
  const hue = (type) => Math.floor(data.entity_types.indexOf(type) * 137.5) % 360;

  function words(sentence, answer, relation, index) {
    const entity = ([start, end, type]) => `${sentence.tokens.slice(start, end).join(" ")} (${type})`;
    if (!relation) return entity(answer.entities[index]);
    const [label, head, tail] = answer.relations[index];
    const line = symmetric.has(label) ? ["—", "—"] : ["—", "→"];
    return `${entity(answer.entities[head])} ${line[0]} ${label} ${line[1]} ${entity(answer.entities[tail])}`;
  }

  function mistakes(sentence, answer) {
    const lines = answer.mistakes.map(([kind, relation, gold, predicted]) => {
      const parts = [];
      if (predicted !== null) parts.push(words(sentence, answer, relation, predicted));
      if (gold !== null) parts.push((predicted === null ? "" : "· gold: ") + words(sentence, sentence.answers[0], relation, gold));
      return element("li", {}, element("b", {}, kind), ` ${parts.join(" ")}`);
    });
    return element("ul", { class: "mistakes" }, ...lines);
  }

  // ---- arcs, over text that is laid out already ----

  function drawArcs() {
    for (const text of arcs.keys()) if (!text.isConnected) arcs.delete(text);
    const drawings = [...arcs].map(([text, relations]) => [text, relations, measure(text, relations)]); // reads first
    for (const [text, relations, places] of drawings) {
      text.querySelector("svg")?.remove();
      if (relations.length) text.append(drawing(relations, places));
    }
  }

  function measure(text, relations) {
    const origin = text.getBoundingClientRect();
    const ends = new Map(); // how many arcs end at a mark, so that they stand side by side
    const place = (mark) => {
      const box = mark.getClientRects()[0];
      const taken = ends.get(mark) || 0;
      ends.set(mark, taken + 1);
      const aside = Math.min(box.width / 2 - 4, 7 * Math.ceil(taken / 2)) * (taken % 2 ? 1 : -1);
      const x = box.left - origin.left + box.width / 2 + aside;
      return { x, top: box.top - origin.top, bottom: box.bottom - origin.top };
    };
    return relations.map(({ head, tail }) => [place(head), place(tail)]);
  }

  function svg(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawing(relations, places) {
    const label = relations.map(({ words }) => words).join("; ");
    return svg("svg", { role: "img", "aria-label": label }, ...relations.map((r, i) => arc(r, ...places[i])));
  }

  function arc({ label, wrong, words }, head, tail) {
    const [path, tip, x, y] = curve(head, tail);
    const group = svg("g", wrong ? { class: "wrong" } : {}, svg("title", {}, words), svg("path", { d: path }));
    if (!symmetric.has(label)) group.append(svg("path", { d: tip, class: "tip" }));
    group.append(svg("text", { x, y }, label));
    return group;
  }

  // The curve from head to tail, its arrow head, and where its label goes.
  function curve(head, tail) {
    if (Math.abs(head.top - tail.top) < 8) {
      const rise = Math.min(26, 10 + 0.05 * Math.abs(head.x - tail.x));
      const high = head.top - rise / 0.75;
      const path = `M${head.x} ${head.top} C${head.x} ${high} ${tail.x} ${high} ${tail.x} ${tail.top}`;
      return [path, tipAt(tail.x, tail.top, -1), (head.x + tail.x) / 2, head.top - rise + 3];
    }
    const down = tail.top > head.top;
    const [from, to, side] = down ? [head.bottom, tail.top, -1] : [head.top, tail.bottom, 1];
    const bend = -side * Math.min(40, Math.max(14, Math.abs(to - from) / 2));
    const path = `M${head.x} ${from} C${head.x} ${from + bend} ${tail.x} ${to - bend} ${tail.x} ${to}`;
    return [path, tipAt(tail.x, to, side), (head.x + tail.x) / 2, (from + to) / 2 + 3];
  }

  const tipAt = (x, y, side) => `M${x - 3.5} ${y + 6 * side} L${x} ${y} L${x + 3.5} ${y + 6 * side}z`;

  makeFilters();
  show();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) drawArcs(); // phones change the height alone as they scroll
    width = innerWidth;
  });
})();
