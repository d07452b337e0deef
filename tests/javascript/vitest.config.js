import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["*.test.js"],
    globalSetup: "services.js",
    // longer than until() and the browser wait, so that a failure says what did not happen
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
  // the modules are outside this folder, and React is in it
  resolve: { dedupe: ["react", "react-dom"], alias: { react: new URL("./node_modules/react", import.meta.url).pathname } },
  server: { fs: { strict: false } },
});
