// Returns the least contrast of texts with what is behind each: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
(selector) => {
  const parts = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (parts(color)[3] ?? 1) === 1 || !element.parentElement ? color : behind(element.parentElement);
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const colors = [element.closest("svg") ? style.fill : style.color, behind(element)];
    const [dark, light] = colors.map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  return Math.min(...[...document.querySelectorAll(selector)].map(contrast));
}
