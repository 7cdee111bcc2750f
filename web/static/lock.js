// Blanks the screen when nobody has touched it for a while; the page stays as it is underneath, and the PIN brings it back.

const WARN_MS = 30000;
const TELL_MS = 20000;

const dialog = document.getElementById("lock");
const leaving = document.getElementById("leaving");
const form = dialog.querySelector("form");
const wrong = dialog.querySelector(".wrong");
const limit = Number(dialog.dataset.seconds) * 1000;

let touched = Date.now();
let told = Date.now();

function cover() {
  if (dialog.open) return;
  for (const open of document.querySelectorAll("dialog[open]")) open.close();
  document.documentElement.classList.add("covered");
  leaving.hidden = true;
  dialog.showModal();
}

function uncover() {
  document.documentElement.classList.remove("covered");
  dialog.close();
  form.reset();
  wrong.hidden = true;
  touched = told = Date.now();
}

function touch() {
  if (dialog.open) return;
  touched = Date.now();
  leaving.hidden = true;
  if (touched - told < Math.min(TELL_MS, limit / 3)) return;
  told = touched;
  fetch(dialog.dataset.present, { method: "POST" }).then((answer) => answer.status === 401 && cover(), () => {});
}

for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(kind, touch, { passive: true });
addEventListener("signed-out", cover);
dialog.addEventListener("cancel", (event) => event.preventDefault());

setInterval(() => {
  const idle = Date.now() - touched;
  if (idle > limit) cover();
  else leaving.hidden = idle < limit - Math.min(WARN_MS, limit / 3);
}, 1000);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form));
  body.set("quiet", "1");
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    if (answer.status === 204) return uncover();
    if (answer.status !== 422) return location.reload();
    wrong.textContent = await answer.text();
  } catch {
    wrong.textContent = dialog.dataset.sayAway;
  }
  wrong.hidden = false;
  form.elements.pin.select();
});
