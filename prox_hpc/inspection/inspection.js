"use strict";
// Lists, filters and shows the documents in #data. Text of documents only ever becomes text nodes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const DOCUMENTS = DATA.documents;
const FILTERS = ["outcome", "status", "op", "domain", "q"];
const LONGEST = 1200; // characters of a stretch of text shown at once
const phone = matchMedia("(max-width: 52rem)");
const element = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const many = (number, thing, things = `${thing}s`) => `${count(number)} ${number === 1 ? thing : things}`;

let state = {}; // the filters, and `doc`: number of the document asked for, from 1
let listed = []; // numbers of the documents that pass the filters
let shown = 0; // number of the document on show, 0 = none
let unfolded = false;

function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------- text

const pattern = (...ranges) => new RegExp(`([${ranges.flat().map(([low, high]) => `\\u{${low.toString(16)}}-\\u{${high.toString(16)}}`).join("")}])`, "gu");
const UNSEEN = pattern(DATA.unseen);
const UNSEEN_OR_SPACE = pattern(DATA.unseen, DATA.spaces);

// Nodes for a text: what would not be seen, or would act on the page, stands as its code point.
function visible(text, spaces = false) {
  return text.split(spaces ? UNSEEN_OR_SPACE : UNSEEN).map((piece, place) => place % 2
    ? make("span", { class: "unseen" }, "U+" + piece.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"))
    : piece).filter((piece) => piece !== "");
}

function stretch(text, spaces = false) {
  if (text.length <= LONGEST || isFound(text)) return visible(text, spaces);
  const more = make("button", { type: "button", class: "more" }, `${count(text.length - LONGEST)} characters`);
  more.addEventListener("click", () => more.replaceWith(...visible(text.slice(LONGEST / 2, -LONGEST / 2), spaces)));
  return [...visible(text.slice(0, LONGEST / 2), spaces), more, ...visible(text.slice(-LONGEST / 2), spaces)];
}

const lineText = (line) => typeof line === "string" ? line : line.text ?? line.parts.map((part) => typeof part === "string" ? part : part.join(" ")).join("");

const haystacks = [];
function haystack(number) {
  const one = DOCUMENTS[number - 1];
  return haystacks[number] ??= [one.id, one.url ?? "", ...one.lines.map(lineText),
    ...one.chunks.flatMap((chunk) => [chunk.written ?? "", ...chunk.operations.map(([call]) => call)])].join("\n").toLowerCase();
}

// ---------------------------------------------------------------- what there is to filter by

// Per facet and document: key ("normalize/refused/source not found", and its beginnings) -> how often.
function keysOf(one) {
  const keys = { outcome: new Map(), status: new Map(), op: new Map(), domain: new Map([[one.domain, 1]]) };
  const add = (facet, ...path) => {
    for (let depth = 1; depth <= path.length; depth++) {
      const key = path.slice(0, depth).join("/");
      keys[facet].set(key, (keys[facet].get(key) ?? 0) + 1);
    }
  };
  add("outcome", one.outcome, ...(one.reason ? [one.reason] : []));
  for (const chunk of one.chunks) {
    add("status", chunk.status, ...(chunk.reason ? [chunk.reason] : []));
    for (const [, name, outcome, reason] of chunk.operations) {
      add("op", name, ...(outcome === "no_change" && !reason ? [] : [outcome]), ...(reason ? [reason] : []));
    }
  }
  return keys;
}
const KEYS = DOCUMENTS.map(keysOf);

// [key, times, documents] of a facet: the most frequent first, what belongs under a key right after it.
function rowsOf(facet) {
  const totals = new Map();
  for (const keys of KEYS) {
    for (const [key, times] of keys[facet]) {
      const total = totals.get(key) ?? [key, 0, 0];
      totals.set(key, [key, total[1] + times, total[2] + 1]);
    }
  }
  const below = (prefix, depth) => [...totals.values()]
    .filter(([key]) => key.startsWith(prefix) && key.split("/").length === depth)
    .sort((a, b) => b[1] - a[1])
    .flatMap((row) => facet === "domain" ? [row] : [row, ...below(row[0] + "/", depth + 1)]);
  return facet === "domain" ? [...totals.values()].sort((a, b) => b[1] - a[1]) : below("", 1);
}

const FACETS = {
  outcome: { title: "Outcome", any: "any outcome", unit: null },
  status: { title: "Status", any: "any status", unit: "programs" },
  op: { title: "Operation", any: "any operation", unit: "calls" },
  domain: { title: "Domain", any: "any domain", unit: null },
};

function buildFacets() {
  for (const [facet, { title, any, unit }] of Object.entries(FACETS)) {
    const rows = rowsOf(facet);
    if (facet === "domain") {
      element("domain").hidden = rows.length === 1 && rows[0][0] === DATA.noUrl;
      if (element("domain").hidden) continue;
      element("domains").append(...rows.map(([key]) => make("option", { value: key })));
    } else {
      element(facet).append(make("option", { value: "" }, any), ...rows.map(([key, , documents]) => {
        return make("option", { value: key }, `${key.replaceAll("/", " · ")} (${count(documents)})`);
      }));
    }
    if (!rows.length) continue;
    const most = Math.max(...rows.map((row) => row[1]));
    const table = make("table", {},
      make("thead", {}, make("tr", {}, make("th", {}, title), ...(unit ? [make("th", {}, unit)] : []), make("th", {}, "documents"))));
    const body = table.createTBody();
    for (const [key, times, documents] of rows.slice(0, facet === "domain" ? 8 : undefined)) {
      const path = facet === "domain" ? [key] : key.split("/");
      const button = make("button", { type: "button", title: path.at(-1) }, ...visible(path.at(-1)));
      button.addEventListener("click", () => change({ [facet]: state[facet] === key ? "" : key, doc: 0 }));
      const row = make("tr", { "data-facet": facet, "data-key": key, class: `depth${path.length}` },
        make("th", { scope: "row" }, button), ...(unit ? [make("td", {}, count(times))] : []), make("td", {}, count(documents)));
      row.style.setProperty("--share", `${100 * times / most}%`);
      body.append(row);
    }
    if (facet === "domain" && rows.length > 8) body.append(make("tr", {}, make("td", { colspan: 2, class: "rest" }, `and ${count(rows.length - 8)} more`)));
    document.querySelector(".facets").append(make("div", { class: "facet" }, table));
  }
}

function passes(number) {
  const keys = KEYS[number - 1];
  return ["outcome", "status", "op"].every((facet) => !state[facet] || keys[facet].has(state[facet]))
    && (!state.domain || DOCUMENTS[number - 1].domain.includes(state.domain.toLowerCase()))
    && (!state.q || haystack(number).includes(state.q.toLowerCase()));
}

// ---------------------------------------------------------------- the list

// What is told of a document in a line.
function facts(one) {
  const [before, after] = one.words;
  return [
    one.removed ? `−${count(one.removed)} of ${many(one.lines.length, "line")}` : many(one.lines.length, "line"),
    ...(one.replaced ? [`${count(one.replaced)} replaced`] : []),
    before === after ? many(before, "word") : `${count(before)} → ${count(after)} words`,
  ];
}

function nameOf(one) {
  if (!one.url) return one.id;
  const path = one.url.replace(/^[a-z]+:\/\/[^/?#]*/i, "");
  return path === "" || path === "/" ? one.url : path;
}

function buildList() {
  element("list").append(...DOCUMENTS.map((one, index) => {
    const odd = [...KEYS[index].status.keys()].filter((key) => !key.includes("/") && key !== "ok");
    const item = make("a", { href: `#doc=${index + 1}`, class: one.outcome },
      make("span", { class: "name" }, ...visible(nameOf(one).slice(0, 300))),
      make("span", { class: "sub" }, ...(one.url ? [make("span", {}, ...visible(one.domain))] : []), facts(one).join(" · ")),
      ...(odd.length ? [make("span", { class: "tags" }, ...odd.map((status) => make("span", { class: "tag" }, status)))] : []));
    item.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      change({ doc: index + 1 }, phone.matches);
      toTop();
    });
    return item;
  }));
}

// ---------------------------------------------------------------- one document

// Whether this is one of the programs that the filters for status and operation are about.
function isHit(chunk) {
  const within = (key, ...path) => path.slice(0, key.split("/").length).join("/") === key;
  return (state.status || state.op) !== ""
    && (!state.status || within(state.status, chunk.status, chunk.reason))
    && (!state.op || chunk.operations.some(([, name, outcome, reason]) => within(state.op, name, outcome, reason)));
}

const isFound = (text) => state.q !== "" && text.toLowerCase().includes(state.q.toLowerCase());

const MARKS = { applied: "✓", refused: "✗", no_change: "·" };

function programHead(chunk) {
  const last = chunk.first + chunk.count - 1;
  const lines = chunk.count === 1 ? `line ${pad(chunk.first)}` : `lines ${pad(chunk.first)}–${pad(last)}`;
  const head = make("div", { class: `program ${chunk.status}${isHit(chunk) ? " hit" : ""}` },
    make("p", {}, lines, " ", make("b", {}, chunk.status), chunk.reason ? `: ${chunk.reason}` : "",
      chunk.executed ? "" : ", not executed"));
  if (chunk.operations.length) {
    head.append(make("ul", {}, ...chunk.operations.map(([call, name, outcome, reason, affected]) => {
      const code = make("code", {}, ...stretch(call, true));
      if (name === "remove_lines" && outcome === "applied") code.dataset.call = call;
      return make("li", { class: outcome }, make("span", { class: "mark" }, MARKS[outcome]), code,
        ...(name === "normalize" && affected > 1 ? [" ", make("small", {}, `${count(affected)} times`)] : []),
        ...(reason ? [" ", make("em", {}, `${outcome.replace("_", " ")}: ${reason}`)] : []));
    })));
  }
  if (chunk.written !== null) {
    const details = make("details", {}, make("summary", {}, "as written"), make("pre", {}, ...chunk.written.split("\n").flatMap((line) => [...stretch(line), "\n"])));
    details.open = !chunk.operations.length || isFound(chunk.written);
    head.append(details);
  }
  return head;
}

const pad = (number) => String(number).padStart(3, "0");

function lineRow(line, number) {
  const text = make("span", { class: "text" });
  const row = make("div", { class: `line${isFound(lineText(line)) ? " found" : ""}`, "data-number": pad(number) }, text);
  if (typeof line === "string") text.append(...stretch(line));
  else if (line.text !== undefined) {
    row.classList.add("removed");
    row.title = line.by;
    row.dataset.by = line.by;
    text.append(make("del", {}, ...stretch(line.text)));
  } else {
    row.classList.add("replaced");
    for (const part of line.parts) {
      if (typeof part === "string") text.append(...stretch(part));
      else {
        if (part[0]) text.append(make("del", {}, ...stretch(part[0], true)));
        if (part[1]) text.append(make("ins", {}, ...stretch(part[1], true)));
      }
    }
  }
  return row;
}

// Rows from line `first` to before `stop`. opened: a fold is, before which the programs that were not folded stand already.
function rows(one, first, stop, folds, opened = false) {
  const made = [];
  let chunk = one.chunks.findIndex((candidate) => candidate.at >= first);
  if (chunk < 0) chunk = one.chunks.length;
  for (let number = first; number < stop || (number === stop && stop === one.lines.length); number++) {
    const fold = folds.get(number);
    for (; chunk < one.chunks.length && one.chunks[chunk].at === number; chunk++) {
      const elsewhere = one.chunks[chunk].quiet ? fold : opened && number === first;
      if (!elsewhere) made.push(programHead(one.chunks[chunk]));
    }
    if (number === one.lines.length) break;
    if (!fold) {
      made.push(lineRow(one.lines[number], number));
      continue;
    }
    const [from, to, programs] = fold;
    const what = `${many(to - from + 1, one.outcome === "dropped" ? "more line" : "unchanged line")}${programs ? `, ${many(programs, "program")}` : ""}`;
    const button = make("button", { type: "button", class: "fold" }, what);
    button.addEventListener("click", () => {
      button.replaceWith(...rows(one, from, to + 1, new Map(), true));
      highlight();
    });
    made.push(button);
    number = to;
    while (chunk < one.chunks.length && one.chunks[chunk].at <= to) chunk++;
  }
  return made;
}

function show(number) {
  shown = number;
  const detail = element("detail");
  detail.replaceChildren();
  if (!number) {
    detail.append(make("p", { class: "none" }, DOCUMENTS.length ? "No document passes the filter." : "There are no documents."));
    return;
  }
  const one = DOCUMENTS[number - 1];
  const folds = new Map(one.folds
    .filter(([from, to]) => !unfolded && !one.lines.slice(from, to + 1).some((line) => isFound(lineText(line)))
      && !one.chunks.some((chunk) => chunk.at >= from && chunk.at <= to && isHit(chunk)))
    .map((fold) => [fold[0], fold]));
  const address = /^https?:\/\//i.test(one.url ?? "")
    ? make("a", { href: one.url, rel: "noreferrer noopener", target: "_blank" }, ...visible(one.url))
    : make("span", {}, ...visible(one.url ?? ""));
  const kinds = [...KEYS[number - 1].status].filter(([key]) => !key.includes("/")).map(([key, times]) => `${count(times)} ${key}`);
  const about = [
    ...(one.score === null ? [] : [`score ${one.score}`]), ...facts(one),
    ...(kinds.length ? [`${many(one.chunks.length, "program")}: ${kinds.join(", ")}`] : ["no programs"]),
  ];
  const hits = one.chunks.filter(isHit).length + one.lines.filter((line) => isFound(lineText(line))).length;
  const jump = make("button", { type: "button", class: "jump", title: "n" }, `${many(hits, "match", "matches")} ↓`);
  jump.addEventListener("click", nextHit);
  const unfold = make("button", { type: "button", class: "unfold" }, unfolded ? "Fold" : "Unfold all");
  unfold.addEventListener("click", toggleFolds);
  detail.append(
    make("div", { class: "head" },
      make("h2", {}, make("span", { class: `badge ${one.outcome}` }, one.outcome), " ", ...visible(one.id)),
      ...(one.url ? [make("p", { class: "address" }, address)] : []),
      make("p", { class: "facts" }, about.join(" · "), ...(one.folds.length ? [" ", unfold] : []), ...(hits ? [" ", jump] : [])),
      ...(one.reason ? [make("p", { class: `verdict ${one.outcome}` }, verdict(one))] : [])),
    make("div", { class: `lines ${one.outcome === "dropped" ? "gone" : ""}` }, ...rows(one, 0, one.lines.length, folds)));
  highlight();
}

function verdict(one) {
  if (one.reason === "doc program") return "The doc stage dropped this document; its text is shown as it was.";
  return one.reason === "blank" ? "White space only: no program was asked for." : `Dropped after editing: ${one.reason}.`;
}

// To the next program or line that the filters are about, from the top of what is seen; after the last, the first.
function nextHit() {
  const hits = [...document.querySelectorAll("#detail :is(.hit, .found)")];
  const from = element("bar").getBoundingClientRect().bottom + 30;
  const next = hits.find((hit) => hit.getBoundingClientRect().top > from) ?? hits[0];
  if (next) window.scrollBy(0, next.getBoundingClientRect().top - from + 20);
}

function toggleFolds() {
  unfolded = !unfolded;
  show(shown);
}

// Marks what is searched for, where the browser can do it without touching the text.
function highlight() {
  if (!CSS.highlights) return;
  CSS.highlights.delete("found");
  const query = state.q.toLowerCase();
  if (!query) return;
  const found = [];
  const walker = document.createTreeWalker(element("detail"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    if (text.length !== walker.currentNode.data.length) continue;
    for (let at = text.indexOf(query); at >= 0; at = text.indexOf(query, at + query.length)) {
      const range = new Range();
      range.setStart(walker.currentNode, at);
      range.setEnd(walker.currentNode, at + query.length);
      found.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...found));
}

// ---------------------------------------------------------------- state: the address says what is shown

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const wanted = Number(given.get("doc") ?? 0);
  state = Object.fromEntries(FILTERS.map((name) => [name, given.get(name) ?? ""]));
  for (const name of ["outcome", "status", "op"]) {
    if (![...element(name).options].some((option) => option.value === state[name])) state[name] = "";
  }
  state.doc = Number.isInteger(wanted) && wanted >= 1 && wanted <= DOCUMENTS.length ? wanted : 0;
}

function change(what, remember = false) {
  state = { ...state, ...what };
  const given = new URLSearchParams();
  for (const name of [...FILTERS, "doc"]) if (state[name]) given.set(name, state[name]);
  history[remember ? "pushState" : "replaceState"](null, "", `#${given}`);
  update();
}

let lastFilter = null;

function update() {
  const filter = FILTERS.map((name) => state[name]).join("\n");
  if (filter !== lastFilter) {
    lastFilter = filter;
    const items = element("list").children;
    listed = [];
    for (let number = 1; number <= DOCUMENTS.length; number++) {
      const passed = passes(number);
      items[number - 1].hidden = !passed;
      if (passed) listed.push(number);
    }
    shown = -1; // what is searched for may be marked anew
  }
  for (const name of FILTERS) if (element(name).value !== state[name]) element(name).value = state[name];
  for (const row of document.querySelectorAll("[data-facet]")) row.classList.toggle("on", state[row.dataset.facet] === row.dataset.key);
  const filtered = FILTERS.some((name) => state[name]);
  element("count").value = listed.length === DOCUMENTS.length ? many(listed.length, "document") : `${count(listed.length)} of ${count(DOCUMENTS.length)}`;
  element("back").lastElementChild.textContent = element("count").value;
  element("clear").hidden = !filtered;
  turn(state.doc > 0);
  const number = listed.includes(state.doc) ? state.doc : listed[0] ?? 0;
  if (number !== shown) show(number);
  for (const item of document.querySelectorAll("#list [aria-current]")) item.removeAttribute("aria-current");
  if (number) {
    const item = element("list").children[number - 1];
    item.setAttribute("aria-current", "true");
    reveal(item);
  }
  const index = listed.indexOf(number);
  element("previous").disabled = index <= 0;
  element("next").disabled = index < 0 || index + 1 >= listed.length;
}

let place = 0; // where in the list a phone left it

function turn(reading) {
  if (reading === document.body.classList.contains("reading")) return;
  if (reading) place = scrollY;
  document.body.classList.toggle("reading", reading);
  if (phone.matches) scrollTo(0, reading ? 0 : place);
}

// Scrolls the list only, and only as far as needed.
function reveal(item) {
  const list = element("list");
  const [inner, outer] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop += inner.top - outer.top;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

function step(by) {
  const number = listed[listed.indexOf(shown) + by];
  if (!number) return;
  change({ doc: number });
  toTop();
}

// The document's beginning right under the bar, if one has read on.
function toTop() {
  const top = element("detail").getBoundingClientRect().top - element("bar").offsetHeight;
  if (top < 0 || phone.matches) window.scrollBy(0, top);
}

let typing;
for (const name of FILTERS) {
  element(name).addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ [name]: element(name).value, doc: 0 }), element(name).tagName === "SELECT" ? 0 : 150);
  });
}
element("bar").addEventListener("submit", (event) => event.preventDefault());
element("clear").addEventListener("click", () => change({ ...Object.fromEntries(FILTERS.map((name) => [name, ""])), doc: 0 }));
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("back").addEventListener("click", () => change({ doc: 0 }));
element("detail").addEventListener("click", (event) => {
  const call = event.target.closest("[data-call]")?.dataset.call;
  const line = call && [...document.querySelectorAll(".line.removed")].find((row) => row.dataset.by === call);
  if (line) line.scrollIntoView({ block: "center" });
});
element("detail").addEventListener("mouseover", (event) => {
  const call = event.target.closest("[data-call]")?.dataset.call;
  for (const row of document.querySelectorAll(".line.removed")) row.classList.toggle("lit", row.dataset.by === call);
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = { j: () => step(1), k: () => step(-1), e: toggleFolds, n: nextHit, "/": () => element("q").focus() }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
addEventListener("hashchange", () => (readAddress(), update()));
addEventListener("popstate", () => (readAddress(), update()));

element("summary").open = !phone.matches && innerHeight >= 800;
buildFacets();
buildList();
readAddress();
update();
