// Puts the chosen theme on the page before it is drawn, so that it never flashes in the other one.
const chosen = localStorage.getItem("theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
