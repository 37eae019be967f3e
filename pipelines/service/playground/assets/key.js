// The dialog for the key.

import { key, keepKey } from "./api.js";
import { byId } from "./element.js";

/**
 * Bring the dialog to life.
 * @param {() => void} onChanged Called when the key has changed.
 * @returns {(why: string) => void} Opens the dialog.
 */
export function keyDialog(onChanged) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  const button = byId("key-button");
  const open = (why) => {
    button.hidden = false;
    byId("key-why").textContent = why;
    byId("key-forget").hidden = key() === null;
    field.value = "";
    if (!dialog.open) dialog.showModal();
    field.focus();
  };
  const settle = (value) => {
    keepKey(value);
    dialog.close();
    onChanged();
  };
  button.hidden = key() === null;
  button.addEventListener("click", () => open(key() === null ? "This service asks for a key." : "Another key?"));
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-forget").addEventListener("click", () => settle(null));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim()) settle(field.value.trim());
  });
  return open;
}
