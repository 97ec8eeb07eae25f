"use strict";

const ALONE = "image alone";

/** Every image of a gallery with its masks, and a stage on which two of them are laid over it. */
function galleryView(gallery, runs) {
  const several = gallery.runs.length > 1;
  return gallery.pictures.map((picture) => {
    const order = { truth: 0, coarse: 1, prediction: 2, confidence: 2, map: 3 };
    const layers = [...picture.layers].sort((a, b) => order[a.kind] - order[b.kind]);
    const named = layers.map((layer) => ({ ...layer, name: layerName(layer, runs, several, gallery.classes) }));
    const scored = named.filter((layer) => known(layer.miou));
    const scores = scored.map((layer) => `${scored.length > 1 ? `${layer.name}: ` : ""}mIoU ${share(layer.miou)}`);
    return el("article", { class: "picture" },
      el("h3", {}, picture.id, " ",
        el("span", { class: "faint" }, `${scores.join(", ")}; rank ${picture.rank} of ${picture.of}`)),
      el("div", { class: "picture-body" },
        el("div", {},
          el("div", { class: "strip" }, imageFigure(picture), named.map((layer) => maskFigure(picture, layer))),
          presentLegend(named, gallery)),
        stage(picture, named)));
  });
}

function layerName(layer, runs, several, classes) {
  if (layer.kind === "truth") return "truth";
  if (layer.kind === "coarse") return "coarse mask";
  if (layer.kind === "map" || layer.kind === "confidence") {
    return `${several ? `${runs[layer.run].name}: ` : ""}${layer.kind === "map" ? layer.label : "confidence"} (${layer.result})`;
  }
  return several ? `${runs[layer.run].name}: ${layer.result}` : `prediction (${layer.result})`;
}

const sized = (picture, src, alt) =>
  el("img", { src, alt, width: picture.width, height: picture.height, decoding: "async", draggable: "false" });

const imageFigure = (picture) =>
  el("figure", {}, sized(picture, picture.image, `Image ${picture.id}`), el("figcaption", {}, "image"));

/** A mask by itself, or a map, which is seen through, over the image. */
function maskFigure(picture, layer) {
  const under = layer.kind === "map" ? sized(picture, picture.image, `Image ${picture.id}`) : null;
  const mask = sized(picture, layer.mask, `${layer.name} of ${picture.id}`);
  return el("figure", {}, el("div", { class: under ? "over" : "mask" }, under, mask),
    el("figcaption", {}, layer.name, known(layer.miou) ? `, mIoU ${share(layer.miou)}` : null,
      layer.note ? `: ${layer.note}` : null));
}

/** The image with one mask left of an edge and another one right of it. */
function stage(picture, layers) {
  const coarse = layers.find((layer) => layer.kind === "coarse");
  const [prediction, other] = layers.filter((layer) => layer.kind === "prediction");
  const names = [ALONE, ...layers.map((layer) => layer.name)];
  // Of two predictions the second is usually the better one, and the coarse mask is what a prediction is compared with.
  const pair = coarse || !other ? [coarse ? coarse.name : ALONE, prediction.name] : [prediction.name, other.name];
  const sides = pair.map((name) => {
    const image = sized(picture, null, "");
    image.classList.add("layer");
    return { image, name };
  });
  const edge = el("div", { class: "edge" });
  const box = el("div", { class: "stage" }, sized(picture, picture.image, `Image ${picture.id} under two masks`),
    sides.map((side) => side.image), edge);

  function put(side, name) {
    const layer = layers.find((found) => found.name === name);
    side.image.hidden = !layer;
    if (layer) side.image.src = layer.mask;
    side.image.classList.toggle("smooth", Boolean(layer) && layer.kind === "map");
  }
  const slider = (label, value, change) => {
    const id = freshId();
    const input = el("input", { id, type: "range", min: 0, max: 100, value, oninput: () => change(input.value) });
    return [el("label", { for: id }, label), input];
  };
  const opacity = slider("opacity", 60, (value) => {
    for (const side of sides) side.image.style.opacity = value / 100;
  });
  const swipe = slider("swipe", 50, (value) => {
    sides[0].image.style.clipPath = `inset(0 ${100 - value}% 0 0)`;
    sides[1].image.style.clipPath = `inset(0 0 0 ${value}%)`;
    edge.style.left = `${value}%`;
  });
  const chosen = ["left", "right"].map((text, k) =>
    choice(text, names.map((name) => [name, name]), sides[k].name, (name) => put(sides[k], name)));

  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const place = box.getBoundingClientRect();
    swipe[1].value = (100 * (event.clientX - place.left)) / place.width;
    swipe[1].dispatchEvent(new Event("input"));
  };
  box.addEventListener("pointerdown", drag);
  box.addEventListener("pointermove", drag);

  sides.forEach((side) => put(side, side.name));
  for (const [, input] of [opacity, swipe]) input.dispatchEvent(new Event("input"));
  return el("div", {}, box, el("div", { class: "controls" }, swipe, opacity, chosen));
}

/** The classes that an image's masks show, and no others. */
function presentLegend(layers, gallery) {
  const present = [...new Set(layers.flatMap((layer) => layer.classes))].sort((a, b) => a - b);
  return el("ul", { class: "legend classes-present", "aria-label": "Classes in these masks" },
    present.map((k) => el("li", {}, swatch(gallery.palette[k]), gallery.classes[k])));
}
