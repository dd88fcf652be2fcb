// One row at a time, judged by keys or by touch. The page is never told whose an answer is; what
// models and users wrote is only ever put in as text.

const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const session = remembered("session") ?? keep("session", hexadecimal());
const MARK_KEYS = { a: ["q", "w", "e"], b: ["i", "o", "p"] };
const BEAT_MILLISECONDS = 20_000;

let given; // words, levels and limits
let tongue = "en";
let rows = [];
let at = 0;
let settling = false;
let shown = null; // the row on the screen, as the server gave it
let vote = null; // what is chosen for it so far
let outcome = null; // the result, once it was asked for
let busy = false;

function remembered(name) { return sessionStorage.getItem(`weitiao.${name}`); }
function keep(name, value) { sessionStorage.setItem(`weitiao.${name}`, value); return value; }
function hexadecimal() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function say(word, values = {}) {
  return given.words[tongue][word].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function make(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

// Returns what the server answers; a refusal is thrown, with its sentence in both languages.
async function ask(action, body = {}) {
  let reply;
  try {
    reply = await fetch(`/api/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Weitiao-Token": token },
      body: JSON.stringify({ session, final: settling, ...body }),
    });
  } catch {
    throw { error: "lost" };
  }
  const found = await reply.json().catch(() => ({ error: "lost" }));
  if (!reply.ok) throw found;
  return found;
}

// Does one thing at a time: a key that repeats must not save a row twice.
async function doing(work) {
  if (busy) return;
  busy = true;
  try {
    tell("");
    await work();
  } catch (refused) {
    complain(refused);
  } finally {
    busy = false;
  }
}

function complain(refused) {
  if (!refused?.error) throw refused;
  if (refused.error === "people_elsewhere") view("start");
  tell(refused[tongue] ?? say("lost"), true);
}

function tell(text, bad = false) {
  $("told").textContent = text;
  $("told").classList.toggle("bad", bad);
}

function view(name) {
  for (const id of ["start", "list", "row", "end"]) $(id).hidden = id !== name;
  $("choice").hidden = name !== "row";
  $("refused").hidden = $("take-over").hidden = true;
  $("begin").hidden = false;
  const done = rows.filter((row) => row.done).length;
  $("count").textContent = rows.length ? say("progress", { done, total: rows.length }) : "";
  $("bar").style.transform = `scaleX(${rows.length ? done / rows.length : 0})`;
}

async function join(takeOver = false) {
  const name = $("name").value;
  try {
    keep("name", (await ask("join", { name, take_over: takeOver })).name);
  } catch (refused) {
    if (!refused?.[tongue]) throw refused;
    view("start");
    $("refused").textContent = refused[tongue];
    $("refused").hidden = false;
    $("take-over").hidden = refused.error !== "people_same_name";
    $("begin").hidden = !$("take-over").hidden;
    return;
  }
  await open();
}

// Shows the first row that is left, or the list of rows to settle.
async function open() {
  keep("settling", settling ? "1" : "");
  rows = (await ask("list")).rows;
  if (settling) return list();
  return forward(0);
}

function list() {
  view("list");
  const word = rows.length ? "to_settle" : "none_disputed";
  $("list-head").textContent = say(word, { count: rows.length });
  $("heads").replaceChildren(...rows.map((row, place) => {
    const line = document.createElement("li");
    const button = make("button", row.head || say("empty"), row.done ? "done" : "");
    button.type = "button";
    button.onclick = () => doing(() => go(place));
    line.append(button);
    return line;
  }));
  if (!rows.length) {
    const back = make("button", say("back"));
    back.type = "button";
    back.onclick = () => { settling = false; view("start"); };
    $("heads").append(back);
  }
  $("list-head").focus();
}

// Goes to the next row that is left from `from` on, or from the first one; else to the end.
async function forward(from) {
  const left = (row) => !row.done;
  let next = rows.findIndex((row, place) => place >= from && left(row));
  if (next < 0) next = rows.findIndex(left);
  if (next >= 0) return go(next);
  end();
}

function end() {
  outcome = null;
  view("end");
  $("end-back").hidden = !rows.length;
  $("show").hidden = false;
  drawOutcome();
  $("end-head").focus();
}

async function go(place) {
  shown = await ask("row", { row: rows[place].id });
  at = place;
  const own = shown.own;
  vote = {
    better: own?.better ?? null,
    a: own?.a ?? [null, null, null],
    b: own?.b ?? [null, null, null],
  };
  $("comment").value = own?.comment ?? "";
  view("row");
  draw();
  scrollTo(0, 0);
  $("question-head").focus({ preventScroll: true });
}

function draw() {
  $("turns").replaceChildren(...shown.prompt.map(([role, text]) => {
    const turn = make("div", "", "turn");
    if (shown.prompt.length > 1) turn.append(make("b", say(role)));
    turn.append(make("p", text, "text"));
    return turn;
  }));
  $("reference").textContent = shown.reference;
  $("reference-part").hidden = !shown.reference;
  $("said-part").hidden = !shown.said.length;
  $("said").replaceChildren(...shown.said.map((other) => {
    const remark = other.comment ? ` – ${other.comment}` : "";
    return make("li", `${other.reviewer}: ${verdict(other.better)}${remark}`);
  }));
  for (const side of ["a", "b"]) drawAnswer(side);
  for (const button of $("choices").children) {
    const better = button.dataset.better;
    button.replaceChildren(make("kbd", { a: "1", tie: "2", b: "3" }[better]), verdict(better));
    button.setAttribute("aria-pressed", String(vote.better === better));
  }
  $("back").disabled = at === 0;
  $("next").disabled = vote.better === null;
}

function verdict(better) {
  return better === "tie" ? say("tie") : say("better", { letter: better.toUpperCase() });
}

function drawAnswer(side) {
  const card = $(side);
  const text = shown.answers[side === "a" ? 0 : 1];
  const letter = side.toUpperCase();
  card.classList.toggle("chosen", vote.better === side);
  $(`${side}-head`).textContent = say("answer", { letter });
  const paragraph = card.querySelector(".text");
  paragraph.textContent = text.trim() || say("empty");
  paragraph.classList.toggle("none", !text.trim());
  card.querySelector(".marks").replaceChildren(...given.levels.map((level, place) => {
    const line = make("div", "", "mark");
    const name = make("span");
    name.append(make("kbd", MARK_KEYS[side][place].toUpperCase()), say(level));
    line.append(name, markButton(side, place, true), markButton(side, place, false));
    return line;
  }));
}

function markButton(side, place, value) {
  const answer = say(value ? "yes" : "no");
  const button = make("button", answer, value ? "yes" : "no");
  button.type = "button";
  button.id = `${side}-${place}-${value ? "yes" : "no"}`;
  button.setAttribute("aria-pressed", String(vote[side][place] === value));
  const values = { letter: side.toUpperCase(), level: say(given.levels[place]), answer };
  button.setAttribute("aria-label", say("mark", values));
  button.onclick = (event) => {
    mark(side, place, vote[side][place] === value ? null : value);
    if (!event.detail) $(button.id).focus(); // drawn anew; who goes by Tab stays where he was
  };
  return button;
}

function mark(side, place, value) {
  vote[side] = vote[side].map((old, other) => (other === place ? value : old));
  draw();
}

function choose(better) {
  vote.better = better;
  draw();
}

async function save() {
  if (vote.better === null) return;
  await ask("vote", { row: rows[at].id, ...vote, comment: $("comment").value });
  rows[at].done = true;
  await forward(at + 1);
  tell(say("saved"));
}

async function results() {
  outcome = await ask("results");
  drawOutcome();
}

function drawOutcome() {
  for (const id of ["headline", "facts", "open"]) $(id).hidden = outcome === null;
  $("settle-now").hidden = !outcome?.open;
  if (outcome === null) return;
  $("show").hidden = true;
  $("headline").textContent = outcome[tongue].headline;
  $("facts").replaceChildren(...outcome[tongue].facts.flatMap(
    ([name, value]) => [make("dt", name), make("dd", value)]));
  $("open").hidden = !outcome.open;
  $("open").textContent = say("open", { count: outcome.open });
}

function translate() {
  document.documentElement.lang = tongue === "zh" ? "zh-CN" : "en";
  for (const part of document.querySelectorAll("[data-word]")) part.textContent = say(part.dataset.word);
  document.title = say("title");
  $("comment").placeholder = say("comment_hint");
  tell("");
  const now = ["start", "list", "row", "end"].find((id) => !$(id).hidden);
  if (!now) return;
  view(now);
  if (now === "row") draw();
  if (now === "list") list();
  if (now === "end") drawOutcome();
}

function speak(wanted) {
  tongue = wanted;
  localStorage.setItem("weitiao.language", wanted);
  translate();
}

const back = () => doing(async () => { if (rows.length) await go(Math.max(0, at - 1)); });
const endBack = () => doing(async () => { await go(at); });
const settle = () => doing(async () => { settling = true; await open(); });

const KEYS = {
  1: () => choose("a"), ArrowLeft: () => choose("a"),
  2: () => choose("tie"), ArrowDown: () => choose("tie"),
  3: () => choose("b"), ArrowRight: () => choose("b"),
  Enter: () => doing(save),
  u: back,
  c: () => $("comment").focus(),
  y: () => { vote.a = [true, true, true]; vote.b = [true, true, true]; draw(); },
};
for (const side of ["a", "b"]) {
  MARK_KEYS[side].forEach((key, place) => {
    // Not said, yes, no, and round again.
    const next = new Map([[null, true], [true, false], [false, null]]);
    KEYS[key] = () => mark(side, place, next.get(vote[side][place]));
  });
}

function pressed(event) {
  if (event.isComposing || event.metaKey || event.altKey || $("keys").open) return;
  const writing = event.target.matches("input, textarea");
  if (writing && !$("row").hidden) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.ctrlKey) doing(save);
    return;
  }
  if (writing || event.ctrlKey) return;
  if (event.key === "?") return $("keys").showModal();
  if (event.key === "Enter" && event.target.matches("button, summary")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!$("end").hidden && key === "u" && rows.length) return endBack();
  if ($("row").hidden || !KEYS[key] || (event.repeat && key === "Enter")) return;
  event.preventDefault();
  KEYS[key]();
}

async function begin() {
  given = await (await fetch("/words.json")).json();
  tongue = localStorage.getItem("weitiao.language") ?? given.language;
  translate();
  $("name").maxLength = given.longest.name;
  $("comment").maxLength = given.longest.comment;
  $("name").value = (remembered("name") ?? given.reviewer).slice(0, given.longest.name);
  settling = remembered("settling") === "1";
  view("start");
  if ($("name").value) await doing(() => join());
  else $("name").focus();
}

$("join").onsubmit = (event) => { event.preventDefault(); settling = false; doing(() => join()); };
$("settle").onclick = () => { if ($("join").reportValidity()) { settling = true; doing(() => join()); } };
$("take-over").onclick = () => doing(() => join(true));
$("help").onclick = () => $("keys").showModal();
$("switch").onclick = () => speak(tongue === "en" ? "zh" : "en");
$("next").onclick = () => doing(save);
$("back").onclick = back;
$("end-back").onclick = endBack;
$("settle-now").onclick = settle;
$("show").onclick = () => doing(results);
for (const button of $("choices").children) {
  button.onclick = (event) => {
    choose(button.dataset.better);
    if (event.detail) button.blur(); // so that Enter saves, not presses the button again
  };
}
document.addEventListener("keydown", pressed);
setInterval(() => { if ($("start").hidden) ask("beat").catch(complain); }, BEAT_MILLISECONDS);
begin();
