// The visible texts of the page whose contrast is below 4.5, and the icons and edges of graphs whose contrast is below 3
// (WCAG 2 AA), with their classes.
() => {
  const TEXT = 4.5;
  const GRAPHIC = 3;
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const background = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 0) layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const found = [];
  const isVisible = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !element.closest(":disabled, noscript");
  const check = (element, color, least, name) => {
    const behind = background(element);
    const contrast = ratio(over(rgba(color), behind), behind);
    if (contrast < least) found.push(`${name}: ${contrast.toFixed(2)} (${element.getAttribute("class")})`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (text && isVisible(element)) check(element, getComputedStyle(element).color, TEXT, text.slice(0, 40));
  }
  // The symbols of an icon are drawn in its colour.
  for (const use of document.querySelectorAll("svg > use")) {
    const icon = use.parentElement;
    if (isVisible(icon)) check(icon, getComputedStyle(icon).color, GRAPHIC, use.getAttribute("href"));
  }
  // An arrow has the colour of its edge.
  for (const edge of document.querySelectorAll(".edge")) {
    if (isVisible(edge)) check(edge, getComputedStyle(edge).stroke, GRAPHIC, `edge from ${edge.dataset.from}`);
  }
  return found;
}
