// Printing, where the tablet knows a printer.
const button = document.getElementById("print");
button.hidden = false;
button.addEventListener("click", () => print());
