// Forms that act: a second tap sends nothing, what can be taken back goes when its time is over, and what the box did not hear is
// sent again when it is back. A form's `request` key is the same each time, so nothing is done twice. It runs before the page is
// there, no module: a form that was touched before its script would go the browser's own way, which loses it when the box is away.

const AGAIN_MS = 2000;
const PATIENCE_MS = 10000;

let [waiting, unsaved] = [false, null];

/** Send until the box answers; meanwhile the page says that it did not. */
async function send(form, body) {
  for (;;) {
    try {
      const request = { method: "POST", body, headers: { "Outpost-Form": "1" }, signal: AbortSignal.timeout(PATIENCE_MS) };
      const response = await fetch(form.getAttribute("action"), request);
      const text = await response.text();
      waiting = false;
      return { next: response.headers.get("Outpost-Next"), text };
    } catch {
      waiting = true;
      unsaved ??= document.getElementById("unsaved");
      if (form.isConnected) (form.closest("#alerts") ?? form).after(unsaved); // what calls is shown anew all the time
      unsaved.hidden = false;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-once]");
  if (!form) return;
  event.preventDefault();
  if (form.dataset.sent) return;
  form.dataset.sent = "true";
  const button = event.submitter;
  button?.setAttribute("aria-busy", "true");
  const body = new URLSearchParams(new FormData(form));
  if (button?.name) body.append(button.name, button.value);
  const { next, text } = await send(form, body);
  if (next) return lead(new URL(next, location.href));
  if (!form.dispatchEvent(new CustomEvent("refused", { bubbles: true, cancelable: true, detail: text }))) return;
  const page = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  if (!page) return location.reload();
  document.querySelector("main").replaceWith(page);
  scrollTo(0, 0);
  page.querySelector("[autofocus]")?.focus();
});

/** Go where the answer leads; an address that differs only behind its # loads nothing by itself. */
function lead(to) {
  if (to.pathname + to.search !== location.pathname + location.search) return location.assign(to);
  history.replaceState(null, "", to);
  location.reload();
}

addEventListener("beforeunload", (event) => {
  if (waiting) event.preventDefault();
});

addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
});

addEventListener("DOMContentLoaded", () => {
  const undo = document.getElementById("undo");
  const end = () => undo.querySelectorAll("button, .left").forEach((over) => over.remove()); // the sheet and the next film stay
  if (undo) setTimeout(end, Number(undo.dataset.seconds) * 1000);
});
