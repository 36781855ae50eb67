"use strict";

const LOOK_EVERY = 200; // milliseconds between two looks at the state
const TAKE_EVERY = 250; // milliseconds between photos while a button is held
const SURE = 0.5; // from this score on, a class is named without a question mark

const $ = (id) => document.getElementById(id);
const SHOW_FOR = 5000; // milliseconds that an error is shown

const items = new Map(); // list items by class
let isLost = false; // the last request got no reply
let showUntil = 0; // until when to show the error, by Date.now()

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** Send a request and draw the state that comes back; return whether that went well. */
async function ask(method, path) {
  let trouble = "";
  try {
    const response = await fetch(path, { method });
    if (response.ok) draw(await response.json());
    else trouble = await response.text();
    if (isLost) $("live").src = `live?${Date.now()}`; // its stream has ended with the old connection
    isLost = false;
  } catch {
    isLost = true;
    trouble = "teach.py does not answer: trying again";
  }
  const now = Date.now();
  if (trouble || method !== "GET" || now > showUntil) show($("error"), trouble);
  if (trouble && !isLost) showUntil = now + SHOW_FOR;
  return !trouble;
}

function makeItem(name) {
  const item = $("class").content.firstElementChild.cloneNode(true);
  const button = item.querySelector(".take");
  item.querySelector(".name").textContent = name;
  button.setAttribute("aria-label", `Take a photo of ${name}`);
  let held = false;
  const take = async () => {
    while (held && (await ask("POST", `photos?class=${encodeURIComponent(name)}`))) {
      await new Promise((resolve) => setTimeout(resolve, TAKE_EVERY));
    }
  };
  const press = () => {
    if (held) return;
    held = true;
    button.classList.add("held");
    take();
  };
  const release = () => {
    held = false;
    button.classList.remove("held");
  };
  button.addEventListener("pointerdown", (event) => event.button === 0 && press());
  for (const end of ["pointerup", "pointercancel", "pointerleave", "blur", "keyup"]) button.addEventListener(end, release);
  button.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && press());
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  return item;
}

function draw(state) {
  const scores = state.scores;
  const [best, score] = Object.entries(scores).reduce((a, b) => (b[1] > a[1] ? b : a), ["", 0]);
  show($("trouble"), state.camera);
  $("answer").textContent = state.camera || !best ? "" : score < SURE ? `${best}?` : best;
  $("answer").classList.toggle("unsure", score < SURE);

  for (const [name, item] of items) {
    if (!state.classes.some((one) => one.name === name)) {
      item.remove();
      items.delete(name);
    }
  }
  for (const { name, photos } of state.classes) {
    if (!items.has(name)) items.set(name, makeItem(name));
    const item = items.get(name);
    if (!item.isConnected) $("classes").append(item);
    item.querySelector(".photos").textContent = photos === 1 ? "1 photo" : `${photos} photos`;
    item.classList.toggle("best", name === best);
    item.querySelector(".bar div").style.width = `${100 * (scores[name] ?? 0)}%`;
    item.querySelector(".bar").setAttribute("aria-label", `${name}: ${Math.round(100 * (scores[name] ?? 0))} %`);
  }

  const federation = state.federation;
  $("add").hidden = Boolean(federation);
  $("undo").disabled = !state.undo;
  $("fps").textContent = state.fps ? `${Math.round(state.fps)} frames/s` : "";
  $("hint").textContent = state.classes.length
    ? "Point the camera at something and hold its button."
    : "No classes yet: add one here, or start the server on the laptop with --classes.";
  if (!federation) $("federation").textContent = "Not connected to a laptop yet";
  else if (!federation.round) $("federation").textContent = "Connected; waiting for the first round";
  else {
    const right = federation.accuracy === null ? "" : `, ${Math.round(100 * federation.accuracy)} % right`;
    $("federation").textContent = `Round ${federation.round}${right}`;
  }
}

$("undo").addEventListener("click", () => ask("DELETE", "photos"));
$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  if (await ask("POST", `classes?name=${encodeURIComponent(form.elements.name.value)}`)) form.reset();
});
$("live").addEventListener("error", () => setTimeout(() => ($("live").src = `live?${Date.now()}`), 2000));

(async function look() {
  for (;;) {
    if (!document.hidden) await ask("GET", "state");
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
  }
})();
