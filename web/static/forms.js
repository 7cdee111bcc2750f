// Forms that act: a second tap sends nothing, and what can be taken back goes when its time is over.

addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-once]");
  if (!form) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
  event.submitter?.setAttribute("aria-busy", "true");
});

addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
});

const undo = document.getElementById("undo");
if (undo) {
  setTimeout(() => {
    for (const over of undo.querySelectorAll("button, .left")) over.remove(); // the sheet and the next film stay
  }, Number(undo.dataset.seconds) * 1000);
}
