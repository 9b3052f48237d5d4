/* plotly.js is in the page as base64 of gzip; it runs once a reader comes near the surfaces. */
async function unpackPlotly() {
  const packed = atob(document.getElementById("plotly-packed").textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

/* Surfaces: one plot, the network chosen above it, one scale for all. */
const plot = document.getElementById("surface-plot");
function showSurfaces() {
  const surfaces = JSON.parse(document.getElementById("surface-data").textContent);
  const choice = document.getElementById("surface-choice");
  const logarithmic = document.getElementById("surface-log");
  const values = surfaces.flatMap((surface) => surface.loss.flat()).filter((value) => value !== null);
  const range = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  logarithmic.disabled = range[0] <= 0;
  logarithmic.checked = range[0] > 0 && range[1] / range[0] > 20;

  const scaled = (value) => (value === null ? null : logarithmic.checked ? Math.log10(value) : value);
  const draw = () => {
    const surface = surfaces[Number(choice.value)];
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const label = logarithmic.checked ? "log\u2081\u2080 loss" : "loss";
    const ends = range.map(scaled);
    const axis = (text, more) => ({ title: { text }, color: colour("--ink"), gridcolor: colour("--line"), ...more });
    const data = [{
      type: "surface", x: surface.alpha, y: surface.beta, z: surface.loss.map((row) => row.map(scaled)),
      colorscale: "Cividis", cmin: ends[0], cmax: ends[1], colorbar: { title: { text: label }, thickness: 12 },
      customdata: surface.loss,
      hovertemplate: "\u03b1 %{x:.3g}<br>\u03b2 %{y:.3g}<br>loss %{customdata:.4g}<extra></extra>",
      contours: { z: { show: true, usecolormap: true, project: { z: true } } },
    }];
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink") },
      uirevision: "kept", /* the view stays when the network changes */
      scene: {
        xaxis: axis("\u03b1"), yaxis: axis("\u03b2"), zaxis: axis(label, { range: ends }),
        camera: { eye: { x: 1.3, y: -1.6, z: 1.0 }, center: { x: 0, y: 0, z: -0.12 } },
        aspectmode: "manual", aspectratio: { x: 1, y: 1, z: 0.7 },
      },
    };
    return Plotly.react(plot, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  };
  draw();
  choice.addEventListener("change", draw);
  logarithmic.addEventListener("change", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

if (plot) {
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    unpackPlotly().then(showSurfaces).catch((reason) => {
      plot.textContent = `This browser cannot show the surface (${reason}); the figures above are the same.`;
    });
  }, { rootMargin: "600px" }).observe(plot);
}
