// A read by keyboard: a key for each choice, Enter seals what the reader sees and then sends. The film stays on the screen meanwhile:
// only the AI's answer is put in. While somebody is there, the hub keeps the film for them.

const HOLD_MS = 60000;
const THERE_MS = 300000;
const LOOK_MS = 60000; // for a picture that is still on the way

const form = document.getElementById("read");
const seal = form.querySelector(".seal");
const go = form.querySelector(".go");
const seen = form.elements.seen;
const own = document.querySelector(".viewer:not([data-earlier])");
let touched = Date.now();

const codes = [...form.querySelectorAll("[name=codes]")];
const outcomes = [...form.querySelectorAll("[name=outcome]")];

const FOLLOWS = { normal: "routine", unsure: "soon" };

const sight = () => codes.find((one) => one.checked)?.dataset.sight;
let followed = FOLLOWS[sight()];
const ask = () => (document.getElementById("urgency").hidden = sight() === "normal");
ask();

/** What stands alone takes the place of the rest, and the urgency follows where it is clear; it does not stay for what is not. */
function chosen(input) {
  if (input.name !== "codes") return;
  if (input.checked) {
    const alone = input.dataset.sight !== "abnormal";
    for (const other of codes) if (other !== input && (alone || other.dataset.sight !== "abnormal")) other.checked = false;
  }
  const follows = FOLLOWS[sight()];
  for (const one of follows === followed ? [] : outcomes) {
    if (follows) one.checked = one.value === follows;
    else if (one.value === followed) one.checked = false;
  }
  followed = follows;
  ask();
}

form.addEventListener("change", ({ target }) => {
  if (target.value === "act_now" && target.checked) for (const one of outcomes) one.checked = one.value === "immediate";
  chosen(target);
});

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "Enter") {
    if (event.target.closest("a, button, summary, select, [name=search]")) return;
    event.preventDefault();
    return form.requestSubmit(document.getElementById("send"));
  }
  const input = form.querySelector(`[data-key="${CSS.escape(event.key.toUpperCase())}"]`);
  if (!input || event.target.closest("input[type=range]")) return;
  event.preventDefault();
  input.closest("details")?.setAttribute("open", "");
  input.click();
  input.focus();
  if (input.dataset.sight === "normal" && input.checked && sealing()) form.requestSubmit(document.getElementById("send"));
});

const sealing = () => "sealing" in form.dataset;

/** Seal the impression and put the AI's answer in, with the film left as it is. */
addEventListener(
  "submit",
  async (event) => {
    if (event.target !== form || !sealing()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (form.dataset.busy) return;
    form.dataset.busy = "true";
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.dataset.seal, { method: "POST", body, headers: { "Outpost-Part": "1" } });
      if (answer.status !== 200) return show(await answer.text());
      document.getElementById("ai").innerHTML = await answer.text();
      map();
      delete form.dataset.sealing;
      form.action = form.dataset.send;
      document.getElementById("wrong")?.remove();
      [seal.hidden, go.hidden] = [true, false];
    } catch {
      document.getElementById("unsaved").hidden = false; // Enter tries again
    } finally {
      delete form.dataset.busy;
    }
  },
  true,
);

form.addEventListener("refused", (event) => {
  event.preventDefault(); // the film stays on the screen
  delete form.dataset.sent;
  document.getElementById("send").removeAttribute("aria-busy");
  show(event.detail);
});

/** What was wrong, said above the form. */
function show(text) {
  const wrong = new DOMParser().parseFromString(text, "text/html").getElementById("wrong");
  document.getElementById("wrong")?.remove();
  if (wrong) form.prepend(wrong);
  else location.reload();
}

/** The heat map that came with the AI's answer belongs to the film's controls. */
function map() {
  const heat = document.querySelector("#ai .heat");
  if (heat) own?.querySelector(".controls").append(heat);
}
map();

addEventListener("bytes", ({ target, detail }) => {
  target.viewer.querySelector(".have").textContent = Math.floor(detail.have / 1024);
  if (target.viewer === own) seen.value = detail.have; // an earlier film says nothing of how much of this one was seen
});

for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(kind, () => (touched = Date.now()), { passive: true });
setInterval(async () => {
  if (document.hidden || Date.now() - touched > THERE_MS) return; // others may have it then
  const answer = await fetch(form.dataset.hold, { method: "POST" }).catch(() => null);
  if (answer?.status === 410) document.getElementById("lost").hidden = false;
}, HOLD_MS);

if (document.querySelector("[data-again]")) setInterval(() => Date.now() - touched > LOOK_MS && location.reload(), LOOK_MS);
