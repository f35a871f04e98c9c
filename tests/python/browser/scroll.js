// Scrolls an element by a step in each frame.
([selector, step, frames]) =>
  new Promise((resolve) => {
    const element = document.querySelector(selector);
    let left = frames;
    const frame = () => {
      element.scrollTop += step;
      left -= 1;
      if (left > 0) requestAnimationFrame(frame);
      else resolve();
    };
    requestAnimationFrame(frame);
  })
