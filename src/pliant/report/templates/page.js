"use strict";

// Charts. Their colours are names of the style, "var(--search)"; Plotly needs the values of the scheme that is shown.

function coloured(value, style) {
  if (Array.isArray(value)) return value.map((item) => coloured(item, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  }
  const name = typeof value === "string" && /^var\((--[a-z]+)\)$/.exec(value);
  return name ? style.getPropertyValue(name[1]).trim() : value;
}

let charts = [];  // [id of the place, figure]

function draw() {
  const style = getComputedStyle(document.documentElement);
  const pointer = matchMedia("(hover: hover)").matches;
  for (const [id, raw] of charts) {
    const figure = coloured(raw, style);
    // A finger scrolls the page; only a pointer that hovers drags out a part of the chart.
    figure.layout.dragmode = pointer ? "zoom" : false;
    Plotly.react(document.getElementById(id), figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
}

// Figures and library are packed: five characters of the alphabet for four bytes of a compressed stream.

const packedLibrary = document.getElementById("plotly");
const digits = new Uint8Array(128);
[...packedLibrary.dataset.alphabet].forEach((letter, digit) => { digits[letter.charCodeAt(0)] = digit; });

function unpacked(source) {
  const text = source.textContent;
  const bytes = new DataView(new ArrayBuffer((text.length / 5) * 4));
  for (let start = 0, at = 0; start < text.length; start += 5, at += 4) {
    let word = 0;
    for (let place = start; place < start + 5; place++) word = word * 85 + digits[text.charCodeAt(place)];
    bytes.setUint32(at, word);
  }
  const stream = new Blob([new Uint8Array(bytes.buffer, 0, Number(source.dataset.length))]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("deflate"))).text();
}

async function drawFirst() {
  const library = document.createElement("script");
  try {
    library.textContent = await unpacked(packedLibrary);
    const sources = [...document.querySelectorAll("script[data-chart]")];
    charts = await Promise.all(sources.map(async (one) => [one.dataset.chart, JSON.parse(await unpacked(one))]));
  } catch {
    for (const place of document.querySelectorAll(".chart")) {
      place.textContent = "This browser cannot draw the chart; one from 2023 or later can. The tables hold the same numbers.";
    }
    return;
  }
  document.head.append(library);
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.getElementById("chart-front")?.on("plotly_click", (event) => {
    const key = event.points.map((point) => point.customdata).find((value) => typeof value === "string");
    if (key) pick(key);
  });
}

drawFirst().finally(() => { document.documentElement.dataset.drawn = ""; });

// The network picked in the chart or in a table.

function show(key) {
  for (const panel of document.querySelectorAll(".panel > article")) panel.hidden = panel.id !== key;
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", String(button.dataset.show === key));
    button.closest("tr").classList.toggle("picked", button.dataset.show === key);
  }
}

function pick(key) {
  show(key);
  document.querySelector(".panel").scrollIntoView({ block: "nearest" });
}

const shown = document.querySelector(".panel > article:not([hidden])");
if (shown) show(shown.id);

// Copying. The clipboard is refused on some pages opened from disk; there the old way works.

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.show) pick(button.dataset.show);
  if (button.dataset.copy !== undefined) {
    button.textContent = (await copy(button.dataset.copy)) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
});
