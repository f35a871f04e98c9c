// Scrolls an element by a step in each frame; returns the milliseconds between frames.
([selector, step, frames]) =>
  new Promise((resolve) => {
    const element = document.querySelector(selector);
    const times = [];
    let last = performance.now();
    const frame = (now) => {
      times.push(now - last);
      last = now;
      element.scrollTop += step;
      if (times.length > frames) resolve(times.slice(1));
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  })
