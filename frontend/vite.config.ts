import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Names without hashes and addresses without a leading slash: the page is committed, told apart
// by ETag, and works behind a path of somebody's proxy.
export default defineConfig({
  base: "./",
  plugins: [svelte({ configFile: false, compilerOptions: { runes: true } })],
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/ui/words.json": "http://127.0.0.1:8000" } },
  build: {
    outDir: "../src/weitiao/serving/web/built",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    license: { fileName: "licences.md" },
    rolldownOptions: {
      output: { entryFileNames: "ui/page.js", assetFileNames: "ui/page[extname]" },
    },
  },
});
