/** Chromium, headless: without windows it takes two thirds of the processor time of one that has them and hides them. */
import { chromium } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function launch(...more) {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium-headless-shell", args: [...FLAGS, ...more] });
}

export const connected = (page) => page.waitForSelector('#state[data-state="connected"]', { timeout: 60_000 });
