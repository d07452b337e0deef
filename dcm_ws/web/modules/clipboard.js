/**
 * Taking things out of the page: buttons that copy, and files.
 */
import { element } from "./dom.js";

/**
 * Copies a text, and says so on the button.
 *
 * @param {HTMLButtonElement} button
 * @param {HTMLElement} shown has the text: it is selected where the page may not copy
 */
export async function copy(button, text, shown) {
  const name = (button.dataset.name ??= button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // without HTTPS a page has no clipboard access, but the keyboard shortcut works
    const around = shown.closest("details");
    if (around) around.open = true;
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = name), 1500);
}

/** @returns {HTMLElement} a command for a terminal, with a button that copies it */
export function command(text) {
  const around = element("div", undefined, "command");
  const shown = element("code");
  // broken between words, not at the hyphens of options
  for (const word of text.split(" ")) shown.append(element("span", word), " ");
  const button = element("button", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy the command ${text.split(" ", 2).join(" ")}`);
  button.addEventListener("click", () => copy(button, text, shown));
  around.append(shown, button);
  return around;
}

/** @returns {string} the URL of the service's WebSockets, also behind a proxy that publishes it under another path */
export function serviceUrl() {
  return new URL("ws", location.href.replace(/^http/, "ws").replace(/[?#].*/, "")).href;
}

/** Saves events as JSON lines; `events` are the oldest first. */
export function download(events) {
  const lines = new Blob(
    events.map((event) => `${JSON.stringify(event)}\n`),
    { type: "application/x-ndjson" },
  );
  const link = element("a");
  link.href = URL.createObjectURL(lines);
  link.download = `dcm-ws-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.jsonl`;
  link.click();
  // once the browser has it
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
