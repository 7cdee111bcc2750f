// The next film by one key; the list is kept current without moving what somebody is about to touch.

const AGAIN_MS = 30000;

addEventListener("load", () => import(`./frames.js${new URL(import.meta.url).search}`)); // and the decoder: here before the first film

addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "n" || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  document.getElementById("next")?.click();
});

setInterval(async () => {
  const queue = document.getElementById("queue");
  const next = document.activeElement?.id === "next"; // where the focus is from the start
  if (document.hidden || (queue.contains(document.activeElement) && !next) || queue.matches(":hover")) return;
  const answer = await fetch(location.pathname, { headers: { "Outpost-Again": "1" } }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("queue");
  if (fresh) {
    queue.replaceWith(fresh);
    if (next) document.getElementById("next")?.focus({ preventScroll: true });
  } else location.reload(); // signed out meanwhile
}, AGAIN_MS);
