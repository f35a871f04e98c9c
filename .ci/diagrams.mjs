// node diagrams.mjs VIZ [--update]: compares each docs/diagrams/NAME.svg with what Graphviz makes of NAME.dot, or writes it.
//
// Sources name classes, not colours. The colours are here, for light and dark: a picture in a page knows only what it
// contains itself. Each has a background of its own, so it can be read on any page.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [library, ...options] = process.argv.slice(2);
const update = options.includes("--update");
const directory = "docs/diagrams";
const { instance } = await import(pathToFileURL(resolve(library)));
const viz = await instance();

const colours = (panel, line, text, box, own, good, bad, muted) => `
.graph > polygon { fill: ${panel}; stroke: none; }
.node path, .node polygon, .node ellipse { fill: ${box}; stroke: ${line}; }
.edge path { fill: none; stroke: ${line}; } .edge polygon { fill: ${line}; stroke: ${line}; }
.cluster path, .cluster polygon { fill: none; stroke: ${line}; stroke-dasharray: 4 3; }
text { fill: ${text}; } .edge text, .cluster > text, .note text { fill: ${muted}; }
.own path, .own polygon { fill: ${own}; } .good path, .good polygon { fill: ${good}; } .bad path, .bad polygon { fill: ${bad}; }
.edge.good path, .edge.bad path { fill: none; }
.note path, .note polygon { fill: none; stroke: none; }`;
const style = `<style>
${colours("#f8fafc", "#64748b", "#0f172a", "#ffffff", "#dbeafe", "#dcfce7", "#fee2e2", "#475569").trim()}
@media (prefers-color-scheme: dark) {${colours("#1b2230", "#8b98ab", "#e5e9f0", "#28313f", "#1e3a5f", "#1d4531", "#5a2630", "#a9b4c4")}
}
</style>
`;

const defaults = {
  graphAttributes: { bgcolor: "white", pad: 0.2, nodesep: 0.35, ranksep: 0.45, fontname: "Helvetica", fontsize: 12 },
  nodeAttributes: { shape: "box", style: "rounded", fontname: "Helvetica", fontsize: 12, margin: "0.16,0.09", height: 0.4 },
  edgeAttributes: { fontname: "Helvetica", fontsize: 11, arrowsize: 0.7 },
};

// The graph's title becomes the picture's name for those who do not see it.
const draw = (source) =>
  viz
    .renderString(source, { format: "svg", ...defaults })
    .replace(/<\?xml[^>]*>\s*<!DOCTYPE[^>]*>\s*/, "")
    .replace(/<!--.*?-->\n?/gs, "")
    .replace(/font-family="Helvetica[^"]*"/g, 'font-family="Helvetica, Arial, sans-serif"')
    .replace(/(<svg[^>]*>)\n?/s, `$1\n${style}`);

let stale = 0;
const sources = readdirSync(directory).filter((name) => name.endsWith(".dot")).sort();
for (const name of sources) {
  const path = join(directory, name.replace(/\.dot$/, ".svg"));
  const drawn = draw(readFileSync(join(directory, name), "utf8"));
  if (update) {
    writeFileSync(path, drawn);
    continue;
  }
  let kept = "";
  try {
    kept = readFileSync(path, "utf8");
  } catch {}
  if (kept !== drawn) {
    stale += 1;
    console.error(`${path} is not what ${name} draws: run .ci/diagrams --update`);
  }
}
if (stale > 0 || sources.length === 0) process.exit(1);
console.log(`diagrams: ${sources.length} ${update ? "written" : "are current"}, Graphviz ${viz.graphvizVersion}`);
