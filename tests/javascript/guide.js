/**
 * The application of the React guide: built from the code of docs/react.md, and served with what it asks its server for.
 */
import { createServer } from "node:http";
import { build } from "esbuild";
import { extract } from "./examples.js";

// what the guide leaves to its reader: a component that uses the last example
const ENTRY = `
  import { createRoot } from "react-dom/client";
  import { DCMProvider } from "dcm-ws-client/react";
  import { useOrders } from "./useOrders.ts";
  import "./main.tsx";

  function State() {
    return <pre>{JSON.stringify(useOrders())}</pre>;
  }
  createRoot(document.getElementById("state")).render(<DCMProvider url="ws://127.0.0.1:3849/ws" token={async () => (await fetch("/my/token")).text()}><State /></DCMProvider>);
`;
const PAGE = '<!doctype html><html lang="en"><title>Orders</title><link rel="icon" href="data:,"><div id="root"></div><div id="state"></div><script src="/app.js"></script></html>';

/**
 * Serve it.  `answers.token` and `answers.orders` are what the application gets from /my/token and /my/orders; `connect`
 * names the service, whose address is another one than in the guide.
 */
export async function serveGuide(answers) {
  extract();
  const bundle = await build({
    stdin: { contents: ENTRY, loader: "jsx", resolveDir: "examples/react" },
    bundle: true,
    write: false,
    jsx: "automatic",
    minify: true,
    define: { "process.env.NODE_ENV": '"production"' },
  });
  let script = bundle.outputFiles[0].text;
  const server = createServer((request, response) => {
    const found = {
      "/": ["text/html", () => PAGE],
      "/app.js": ["text/javascript", () => script],
      "/my/token": ["text/plain", () => answers.token],
      "/my/orders": ["application/json", () => JSON.stringify(answers.orders)],
    }[request.url];
    response.writeHead(found ? 200 : 404, { "content-type": found?.[0] ?? "text/plain" });
    response.end(found?.[1]());
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    connect(url) {
      script = script.replaceAll("ws://127.0.0.1:3849/ws", url);
    },
    close: () => server.close(),
  };
}
