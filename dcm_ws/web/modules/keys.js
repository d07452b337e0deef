/**
 * The keys of the page, and the overview of them.
 */
import { $ } from "./dom.js";

/** @param {Object<string, () => void>} actions by key */
export function listen(actions) {
  $("help").addEventListener("click", () => $("keys").showModal());
  document.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey || key.target.closest("dialog")) return;
    const typing = key.target.closest("input:not([type=checkbox]), textarea, select");
    if (typing && (key.key !== "Escape" || !key.target.closest("#stream"))) return;
    const action = key.key === "?" ? () => $("keys").showModal() : actions[key.key];
    if (!action) return;
    if (key.key !== "Escape") key.preventDefault();
    action();
  });
}
