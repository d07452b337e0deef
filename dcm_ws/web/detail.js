/**
 * The event that is chosen: its envelope, its data, and what can be done with it.
 */
import { $, element } from "./dom.js";
import { folded } from "./json.js";

export class Detail {
  #entry = null;

  /** @param {() => void} leave closes it */
  constructor(leave) {
    $("close").addEventListener("click", leave);
    $("copy").addEventListener("click", () => copy($("copy"), JSON.stringify(this.#entry.event.data, null, 2), $("detail-json")));
    $("copy-event").addEventListener("click", () => copy($("copy-event"), JSON.stringify(this.#entry.event), $("detail-envelope")));
    $("again").addEventListener("click", () => this.#publishAgain());
  }

  /** @param {object | null} entry */
  show(entry) {
    this.#entry = entry;
    $("detail").hidden = entry === null;
    if (entry === null) return;
    const { event } = entry;
    const { data, ...envelope } = event;
    $("detail-title").textContent = event.event;
    $("detail-facts").replaceChildren();
    for (const [name, value] of [
      ["channel", event.channel],
      ["from", event.from],
      ["id", event.id],
      ["time", new Date(event.timestamp).toISOString()],
      ["agent", entry.agent],
    ]) {
      if (value) $("detail-facts").append(element("dt", name), element("dd", value));
    }
    const needle = $("text").value.trim().toLowerCase();
    $("detail-json").replaceChildren(...folded(data ?? null, needle));
    $("detail-envelope").textContent = JSON.stringify(envelope, null, 2);
    $("again").hidden = $("publish").hidden || event.event === "gap";
  }

  /** Fills the form; anyone who presses its button has seen it. */
  #publishAgain() {
    const { event } = this.#entry;
    $("publish-channel").value = event.channel;
    $("publish-event").value = event.event;
    $("publish-data").value = JSON.stringify(event.data, null, 2);
    $("publish-form").querySelector("button").focus();
    $("publish").scrollIntoView({ block: "nearest" });
  }
}

async function copy(button, text, shown) {
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
