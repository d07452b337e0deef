// Reads what `npm pack --json` says: the package has what it should, and nothing else.
import { readFileSync } from "node:fs";

let text = "";
for await (const part of process.stdin) text += part;
const [{ files }] = JSON.parse(text);
const found = files.map(({ path }) => path).sort();
const wanted = ["LICENSE", "README.md", "dcm-ws-react.d.ts", "dcm-ws-react.js", "dcm-ws.d.ts", "dcm-ws.js", "package.json"];
if (JSON.stringify(found) !== JSON.stringify(wanted)) {
  console.error(`the npm package holds ${found.join(", ")}, and not ${wanted.join(", ")}`);
  process.exit(1);
}
// a package must bring its own
if (readFileSync("../../LICENSE", "utf8") !== readFileSync("../../dcm_ws/web/LICENSE", "utf8")) {
  console.error("dcm_ws/web/LICENSE is not the project's LICENSE");
  process.exit(1);
}
console.log(`the npm package holds ${found.join(", ")}`);
