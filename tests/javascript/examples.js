// node examples.js: the code of the documentation as files in examples/, which tsc checks and browser.test.js runs.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const DOCS = "../../docs";
const PACKAGE = "../../dcm_ws/web";
const BLOCK = /^```(tsx?|js)\n(.*?)^```$/gms;

/** As files of the package `dcm-ws-client`'s user: each with the name in its first line, or a number, in a folder of its page. */
export function extract() {
  installPackage();
  rmSync("examples", { recursive: true, force: true });
  for (const name of readdirSync(DOCS).filter((file) => file.endsWith(".md"))) write(name.slice(0, -3), readFileSync(`${DOCS}/${name}`, "utf8"));
  write("package", readFileSync(`${PACKAGE}/README.md`, "utf8"));
}

function write(page, text) {
  const blocks = [...text.matchAll(BLOCK)].filter(([, , code]) => !code.includes('from "node:'));
  if (blocks.length > 0) mkdirSync(`examples/${page}`, { recursive: true });
  for (const [number, [, language, code]] of blocks.entries()) {
    // tsc knows more of TypeScript than of JavaScript, which has to be right as TypeScript, too
    const name = /^\/\/ (\w+\.tsx?)\n/.exec(code)?.[1] ?? `${number}.${language.replace("js", "ts")}`;
    writeFileSync(`examples/${page}/${name}`, code);
  }
}

/** What `npm install` of the package would copy. */
function installPackage() {
  const target = "node_modules/dcm-ws-client";
  mkdirSync(target, { recursive: true });
  const { files } = JSON.parse(readFileSync(`${PACKAGE}/package.json`, "utf8"));
  for (const file of ["package.json", ...files]) copyFileSync(`${PACKAGE}/${file}`, `${target}/${file}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) extract();
