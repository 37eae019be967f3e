// The button for the theme: as the system has it, light, dark.

import { byId } from "./element.js";

const THEMES = ["system", "light", "dark"];
const NAME = "retrieval-theme";

/** Bring the button to life. */
export function themeButton() {
  const button = byId("theme-button");
  const root = document.documentElement;
  const show = () => (button.textContent = `Theme: ${root.dataset.theme ?? "system"}`);
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem(NAME, next);
    } catch {
      // Forbidden: the choice lives as long as the page.
    }
    show();
  });
  show();
}
