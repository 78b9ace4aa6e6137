"use strict";
// Draws all panels, keeps those over steps on one x range, and lets legends switch lines.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  // On a touch screen a drag must scroll the page; zooming is left to the buttons.
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? true : "hover",
    modeBarButtons: [touch ? ["zoomIn2d", "zoomOut2d", "resetScale2d"] : ["resetScale2d", "toImage"]],
    plotlyServerURL: "",
    showTips: false,
  };
  const overSteps = [];
  let following = false;

  const follow = (source, change) => {
    if (following) return;
    const low = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
    const high = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
    const update = low !== undefined ? { "xaxis.range": [low, high] } : change["xaxis.autorange"] ? { "xaxis.autorange": true } : null;
    if (!update) return;
    following = true;
    Promise.all(overSteps.filter((plot) => plot !== source).map((plot) => Plotly.relayout(plot, structuredClone(update))))
      .finally(() => { following = false; });
  };

  // The distance of ticks on a logarithmic axis, as in the first drawing.
  const logStep = ([from, to], pixels) => {
    const decades = Math.abs(to - from);
    if (decades > pixels / 100) return Math.ceil(decades / 5);
    if (decades > 0.7) return "D2";
    const rough = Math.abs(10 ** to - 10 ** from) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    return "L" + Number(([1, 2, 5].find((m) => m * power >= rough * (1 - 1e-9)) ?? 10) * power).toPrecision(3);
  };

  const retick = (plot, change) => {
    const update = {};
    for (const key of Object.keys(change)) {
      const name = key.match(/^(yaxis\d*)\.(range|autorange)/)?.[1];
      const axis = name && plot._fullLayout[name];
      if (!axis || axis.type !== "log" || plot.layout[name].tickvals) continue;
      const step = logStep(axis.range, axis._length);
      if (step !== axis.dtick) update[`${name}.dtick`] = step;
    }
    if (Object.keys(update).length) Plotly.relayout(plot, update);
  };

  const draw = async ([id, figure]) => {
    const plot = document.getElementById(id);
    if (touch) figure.layout.dragmode = false;
    await Plotly.newPlot(plot, figure.data, figure.layout, config);
    plot.on("plotly_relayout", (change) => retick(plot, change));
    if (figure.steps) {
      overSteps.push(plot);
      plot.on("plotly_relayout", (change) => follow(plot, change));
    }
  };

  // Escaped as in the figures, which read tags in names.
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  for (const button of document.querySelectorAll("button.key")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      const name = escaped(button.dataset.name);
      for (const plot of button.closest("section").querySelectorAll(".js-plotly-plot")) {
        const traces = plot.data.flatMap((trace, i) => (trace.name === name ? [i] : []));
        if (traces.length) Plotly.restyle(plot, { visible: shown }, traces);
      }
    });
  }

  // One at a time, so that the page answers while it is drawn.
  (async () => {
    for (const entry of Object.entries(figures)) {
      await draw(entry);
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.drawn = "yes";
  })();
})();
