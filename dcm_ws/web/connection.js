/**
 * What both pages share: the connection with its state, signing in, and the theme.
 */
import { DCMClient, DCMError } from "./dcm-ws.js";
import { $ } from "./dom.js";
import { Status } from "./status.js";

const status = new Status();

/** Answers of the service's HTTP side; null where there is none. */
export async function ask(path, token) {
  try {
    const answer = await fetch(path, { cache: "no-store", headers: token ? { Authorization: `Bearer ${token}` } : {} });
    // 503 says that the service stops, and has the answer all the same
    return answer.ok || answer.status === 503 ? await answer.json() : null;
  } catch {
    return null;
  }
}

/**
 * A client that is connected, with a token where the service wants one.
 *
 * @param {(client: DCMClient) => void} prepare told before it connects, for each token that is tried
 * @returns {Promise<{client: DCMClient, identity: {token?: string}, development: boolean, status: Status}>}
 *   `identity` has the token that was given last
 */
export async function join(prepare) {
  showTheme();
  // not /stats, which a proxy need not publish
  let health = await ask("health");
  for (let delay = 500; health === null; health = await ask("health")) {
    status.connection("waiting");
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(delay * 2, 10_000);
  }
  status.connection("idle");
  // in production the channels are named only to those who have a token
  const development = "channelStats" in health;
  if (development || health.anonymousListeners) {
    const client = open(prepare);
    client.connect().catch(() => {});
    return joined(client, {}, development);
  }
  for (let wrong = ""; ; ) {
    const token = await askForToken(wrong);
    const client = open(prepare, token);
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

function open(prepare, token) {
  const client = new DCMClient("ws", { channels: ["global", "metrics"], token, observer: true });
  client.on("state", (state) => status.connection(state, client));
  client.on("error", (error) => ($("state").title = error.message));
  prepare(client);
  return client;
}

/** A token may expire, or stop being good, while the page is open. */
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
  $("token").value = "";
  return new Promise((resolve) => {
    $("sign-in-form").onsubmit = () => {
      const token = $("token").value.trim();
      $("token").value = "";
      resolve(token);
    };
    // Escape, which no browser lets be prevented twice, must not leave a page that can do nothing
    dialog.onclose = () => dialog.returnValue === "token" || dialog.showModal();
    dialog.returnValue = "";
    if (!dialog.open) dialog.showModal();
    $("token").focus();
  });
}

function showTheme() {
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    dispatchEvent(new Event("themechange"));
  });
}
