// Bundles the viewer into dist/: index.html, viewer.js, style.css, each with its gzip form for the server.
import { build } from "esbuild";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

await rm("dist", { recursive: true, force: true });
await mkdir("dist", { recursive: true });
await build({
  entryPoints: ["src/main.ts"],
  outfile: "dist/viewer.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2021"],
  define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
  legalComments: "none",
  logLevel: "warning",
});
for (const name of ["index.html", "style.css", "icon.svg"]) await cp(name, `dist/${name}`);
for (const name of await readdir("dist")) {
  const content = await readFile(`dist/${name}`);
  await writeFile(`dist/${name}.gz`, gzipSync(content, { level: 9 }));
}
