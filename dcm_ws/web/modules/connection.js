/**
 * What both pages share: the connection with its state, signing in, and the theme.
 */
import { command } from "./clipboard.js";
import { DCMClient, DCMError } from "../dcm-ws.js";
import { $ } from "./dom.js";
import { Status } from "./status.js";

const status = new Status();
const THEME = "dcm-ws.theme";

/** Fetches JSON from the service over HTTP; null if that fails. */
export async function ask(path, token) {
  try {
    const answer = await fetch(path, { cache: "no-store", headers: token ? { Authorization: `Bearer ${token}` } : {} });
    // 503 means that the service is stopping; the body is still valid
    return answer.ok || answer.status === 503 ? await answer.json() : null;
  } catch {
    return null;
  }
}

/**
 * Returns a connected client, with a token if the service requires one.
 *
 * @param {(client: DCMClient) => void} prepare called with the client before it connects, for each token tried
 * @param {number} last positions in the log to begin with
 * @returns {Promise<{client: DCMClient, identity: {token?: string}, development: boolean, status: Status}>}
 *   `identity` has the token that was given last
 */
export async function join(prepare, last = 0) {
  showTheme();
  // not /stats: a proxy may block it
  let health = await ask("health");
  for (let delay = 500; health === null; health = await ask("health")) {
    status.connection("waiting");
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(delay * 2, 10_000);
  }
  status.connection("idle");
  if (health.name) status.name(health.name);
  // in production only users with a token may see the channel names
  const development = "channelStats" in health;
  if (development || health.anonymousListeners) {
    const client = open(prepare, last);
    client.connect().catch(() => {});
    return joined(client, {}, development);
  }
  for (let wrong = ""; ; ) {
    const token = await askForToken(wrong);
    const client = open(prepare, last, token);
    try {
      await client.connect();
      status.token(token);
      return joined(client, { token }, development);
    } catch (error) {
      wrong = error instanceof DCMError ? `${error.message}.` : "That did not work.";
      status.connection("idle");
    }
  }
}

function open(prepare, last, token) {
  const client = new DCMClient("ws", { channels: ["global", "metrics"], token, observer: true, last });
  client.on("state", (state) => status.connection(state, client));
  client.on("error", (error) => ($("state").title = error.message));
  prepare(client);
  return client;
}

/** Handles a token that expires or becomes invalid while the page is open. */
function joined(client, identity, development) {
  let asking = false;
  async function renew(wrong) {
    if (asking) return;
    asking = true;
    for (let reason = wrong; reason !== undefined; ) {
      const token = await askForToken(reason);
      reason = await attempt(client, token);
      if (reason !== undefined) continue;
      identity.token = token;
      status.token(token);
    }
    asking = false;
  }
  const reason = () => (identity.token ? "The token has expired, or is no longer accepted." : "The service accepts no one without a token now.");
  const renewWhenClosed = (state) => state === "closed" && renew(reason());
  client.on("state", renewWhenClosed);
  renewWhenClosed(client.state);
  $("renew").addEventListener("click", () => renew(""));
  return { client, identity, development, status };
}

/** @returns {Promise<string | undefined>} why the token is refused; undefined if it is accepted */
async function attempt(client, token) {
  try {
    if (client.state === "connected") await client.authenticate(token);
    else {
      client.authenticate(token).catch(() => {});
      await client.connect();
    }
    return undefined;
  } catch (error) {
    return `${error.message}.`;
  }
}

function askForToken(wrong) {
  const dialog = $("sign-in");
  $("sign-in-error").textContent = wrong;
  $("token-command").replaceChildren(command("dcm-ws token viewer"));
  $("token").value = "";
  return new Promise((resolve) => {
    $("sign-in-form").onsubmit = () => {
      const token = $("token").value.trim();
      $("token").value = "";
      resolve(token);
    };
    // browsers close the dialog at the second Escape: open it again, or the page could do nothing
    dialog.onclose = () => dialog.returnValue === "token" || dialog.showModal();
    dialog.returnValue = "";
    if (!dialog.open) dialog.showModal();
    $("token").focus();
  });
}

/** Switches between light and dark, and remembers what was chosen. */
function showTheme() {
  const root = document.documentElement;
  const show = (theme) => {
    root.dataset.theme = theme;
    dispatchEvent(new Event("themechange"));
  };
  try {
    const known = localStorage.getItem(THEME);
    if (known === "light" || known === "dark") show(known);
  } catch {
    // the system's theme
  }
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    show(dark ? "light" : "dark");
    try {
      localStorage.setItem(THEME, root.dataset.theme);
    } catch {
      // the page works without
    }
  });
}
