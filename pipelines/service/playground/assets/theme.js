// Runs before the first paint, so that a chosen theme does not flash; main.js brings the button to life.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("retrieval-theme");
  } catch {
    // Storage may be forbidden; the system decides then.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
